"""Max pooling whose derivative compares instead of scattering: ten times faster on CPU."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array
from jaxtyping import Num

from research.errors import check_counts
from research.ops.kernels import choose
from research.ops.padding import check_fits


def max_pool(
  x: Num[Array, 'batch height width channels'],
  window: tuple[int, int],
  strides: Sequence[int] = (),
  padding: str | Sequence[tuple[int, int]] = 'VALID',
) -> Num[Array, 'batch _ _ channels']:
  """Max pooling of images, as `flax.linen.max_pool`.

  `strides` default to the window's size. If windows neither overlap nor are padded, the gradient goes to the first
  maximum of each (in row-major order, as in the plain form), found by comparison, with derivatives of every order,
  forward and reverse. Other windows use the plain form. Raises ConfigError if the window is larger than the padded
  image.
  """
  strides = strides or window
  check_counts(window=window, strides=strides)
  check_fits(x.shape[1:3], window, strides, padding)
  if tuple(strides) != tuple(window) or padding != 'VALID':
    return nn.max_pool(x, window, strides, padding)
  height, width = (size - size % side for size, side in zip(x.shape[1:3], window, strict=True))
  return choose('max_pool', _fast, _plain, x[:, :height, :width], window=tuple(window))


def _plain(x: Array, window: tuple[int, int]) -> Array:
  return nn.max_pool(x, window, window)


_fast = jax.custom_jvp(_plain, nondiff_argnums=(1,))


@_fast.defjvp
def _fast_jvp(window, primals, tangents):
  (x,), (dx,) = primals, tangents
  (batch, height, width, channels), (rows, columns) = x.shape, window
  y = _fast(x, window)
  first = _first_maximum(x, window)[:, :, None, :, None]
  place = jnp.arange(rows * columns, dtype=first.dtype).reshape(1, 1, rows, 1, columns, 1)
  tiles = dx.reshape(batch, height // rows, rows, width // columns, columns, channels)
  return y, jnp.sum(jnp.where(first == place, tiles, 0), (2, 4))


def _first_maximum(x: Array, window: tuple[int, int]) -> Array:
  """Row-major position of the first maximum in each window: int32 [batch, rows, columns, channels].

  Entries are compared with each other, never with the maximum: the compiler may recompute `x` for each use with
  different rounding, and if no entry equaled the maximum its gradient would be lost.
  """
  rows, columns = window
  best, first = x[:, ::rows, ::columns], jnp.zeros((), jnp.int32)
  for place in range(1, rows * columns):
    row, column = divmod(place, columns)
    entry = x[:, row::rows, column::columns]
    first = jnp.where(entry > best, place, first)
    best = jnp.maximum(entry, best)
  return first
