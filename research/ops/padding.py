"""Valid positions of padded sequences, and whether windows fit into padded images."""

from collections.abc import Sequence

import jax.numpy as jnp
from jax import Array, lax
from jax.typing import ArrayLike
from jaxtyping import Bool, Int

from research.errors import ConfigError


def valid(lengths: Int[ArrayLike, ' batch'], length: int) -> Bool[Array, 'batch length']:
  """True for the first `lengths` positions."""
  return jnp.arange(length)[None] < jnp.asarray(lengths)[:, None]


def check_fits(
  sides: Sequence[int], window: Sequence[int], strides: Sequence[int], padding: str | Sequence[tuple[int, int]]
) -> None:
  """Raises ConfigError if the window is larger than padded images with these sides."""
  margins = lax.padtype_to_pads(sides, window, strides, padding) if isinstance(padding, str) else padding
  if any(side + sum(margin) < own for side, margin, own in zip(sides, margins, window, strict=True)):
    size, wanted = ('x'.join(map(str, pair)) for pair in (sides, window))
    raise ConfigError(f'a window of {wanted} on feature maps of {size}: use fewer stages')
