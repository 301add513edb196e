"""Which positions of padded sequences hold something."""

import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Bool, Int


def valid(lengths: Int[ArrayLike, ' batch'], length: int) -> Bool[Array, 'batch length']:
  """True where a sequence has not ended."""
  return jnp.arange(length)[None] < jnp.asarray(lengths)[:, None]
