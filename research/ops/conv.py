"""Convolution of images that takes a faster way where the image has one channel."""

from collections.abc import Sequence

import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Float

from research.ops.kernels import choose
from research.ops.padding import check_fits


def convolve(
  x: Float[Array, 'batch height width channels'],
  kernel: Float[Array, 'rows columns channels features'],
  strides: tuple[int, int],
  padding: str | Sequence[tuple[int, int]],
) -> Float[Array, 'batch _ _ features']:
  """Images `x` convolved with the filters of `kernel`.

  Filters of one channel are too thin for XLA's convolution on CPU, whose time goes into their gradient: there
  the patches are laid out as rows, and the convolution and its gradient are matrix products (im2col).
  Raises ConfigError where the filter is larger than the padded image.
  """
  check_fits(x.shape[1:3], kernel.shape[:2], strides, padding)
  pads = lax.padtype_to_pads(x.shape[1:3], kernel.shape[:2], strides, padding) if isinstance(padding, str) else padding
  options = {'strides': tuple(strides), 'padding': tuple(map(tuple, pads))}
  if x.shape[-1] > 1:
    return _plain(x, kernel, **options)
  return choose('convolution', _of_patches, _plain, x, kernel, **options)


Pads = tuple[tuple[int, int], tuple[int, int]]


def _plain(x: Array, kernel: Array, strides: tuple[int, int], padding: Pads) -> Array:
  return lax.conv_general_dilated(x, kernel, strides, padding, dimension_numbers=('NHWC', 'HWIO', 'NHWC'))


def _of_patches(x: Array, kernel: Array, strides: tuple[int, int], padding: Pads) -> Array:
  patches = _patches(x[..., 0], kernel.shape[:2], strides, padding)
  y = patches.reshape(-1, patches.shape[-1]) @ kernel.reshape(-1, kernel.shape[-1])
  return y.reshape(*patches.shape[:3], -1)


def _patches(
  x: Float[Array, 'batch height width'],
  window: tuple[int, int],
  strides: tuple[int, int],
  padding: Pads,
) -> Float[Array, 'batch _ _ window']:
  """What each filter sees of images; the window's pixels are in the last axis."""
  x = jnp.pad(x, ((0, 0), *padding))
  ends = [size - side + 1 for size, side in zip(x.shape[1:], window, strict=True)]
  shifted = [
    x[:, row : row + ends[0] : strides[0], column : column + ends[1] : strides[1]]
    for row in range(window[0])
    for column in range(window[1])
  ]
  return jnp.stack(shifted, -1)
