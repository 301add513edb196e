"""Convolution and transposed convolution of images."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Float

from research.ops.kernels import choose
from research.ops.padding import check_fits

Pads = tuple[tuple[int, int], tuple[int, int]]  # zeros before and after the rows and the columns


def convolve(
  x: Float[Array, 'batch height width channels'],
  kernel: Float[Array, 'rows columns channels features'],
  strides: tuple[int, int],
  padding: str | Sequence[tuple[int, int]],
) -> Float[Array, 'batch _ _ features']:
  """Convolves images `x` with `kernel`.

  Raises ConfigError if the kernel is larger than the padded image.
  """
  check_fits(x.shape[1:3], kernel.shape[:2], strides, padding)
  pads = lax.padtype_to_pads(x.shape[1:3], kernel.shape[:2], strides, padding) if isinstance(padding, str) else padding
  options = {'strides': tuple(strides), 'padding': tuple(map(tuple, pads))}
  return choose('convolution', _of_patches if x.shape[-1] == 1 else _fast, _plain, x, kernel, **options)


def convolve_transposed(
  x: Float[Array, 'batch height width channels'],
  kernel: Float[Array, 'rows columns channels features'],
  strides: tuple[int, int],
  padding: str | Sequence[tuple[int, int]],
) -> Float[Array, 'batch _ _ features']:
  """Convolves images `x`, dilated by `strides`, with `kernel`, as `jax.lax.conv_transpose` does.

  `padding` 'SAME' enlarges images by a factor of `strides`, 'VALID' keeps every output that a pixel contributes to;
  or it is the zeros on every side. Raises ConfigError if the kernel is larger than the dilated, padded images.
  """
  if isinstance(padding, str):
    padding = [_reach(*sizes, padding) for sizes in zip(kernel.shape[:2], strides, strict=True)]
  spread = [stride * (side - 1) + 1 for side, stride in zip(x.shape[1:3], strides, strict=True)]
  check_fits(spread, kernel.shape[:2], (1, 1), padding)
  options = {'strides': tuple(strides), 'padding': tuple(map(tuple, padding))}
  fast = _fast if options['strides'] == (1, 1) else _by_product
  return choose('transposed_convolution', fast, _plain_transposed, x, kernel, **options)


def _reach(size: int, stride: int, padding: str) -> tuple[int, int]:
  """Zeros before and after an axis of the image, for a kernel of `size`."""
  if padding == 'VALID':
    return size - 1, max(size, stride) - 1
  before = size - 1 if stride >= size else -(-(size + stride - 2) // 2)
  return before, size + stride - 2 - before


def _plain(x: Array, kernel: Array, strides: tuple[int, int], padding: Pads) -> Array:
  return lax.conv_general_dilated(x, kernel, strides, padding, dimension_numbers=('NHWC', 'HWIO', 'NHWC'))


_fast = jax.custom_jvp(_plain, nondiff_argnums=(2, 3))


@_fast.defjvp
def _fast_jvp(strides, padding, primals, tangents):
  (x, kernel), (dx, dkernel) = primals, tangents
  # The kernel's gradient is a convolution that needs both operands in another layout. The compiler fuses the relayout
  # into the loops that compute them, with recomputation and large strides, which took over a third of a ResNet's step.
  # Barriers make it read them from memory. `launch.cpu` keeps XLA from removing the barriers.
  dy = _plain(dx, kernel, strides, padding) + _plain(lax.optimization_barrier(x), dkernel, strides, padding)
  return _fast(x, kernel, strides, padding), lax.optimization_barrier(dy)


def _of_patches(x: Array, kernel: Array, strides: tuple[int, int], padding: Pads) -> Array:
  """As a matrix product (im2col): XLA's convolution is slow for a single input channel.

  Each pixel of the window has its own row, copied contiguously; the kernel's gradient is then a plain matrix product.
  """
  patches = _patches(x[..., 0], kernel.shape[:2], strides, padding)
  y = patches.reshape(len(patches), -1).T @ kernel.reshape(-1, kernel.shape[-1])
  return y.reshape(*patches.shape[1:], -1)


def _plain_transposed(x: Array, kernel: Array, strides: tuple[int, int], padding: Pads) -> Array:
  names = 'NHWC', 'HWIO', 'NHWC'
  return lax.conv_general_dilated(x, kernel, (1, 1), padding, lhs_dilation=strides, dimension_numbers=names)


def _by_product(x: Array, kernel: Array, strides: tuple[int, int], padding: Pads) -> Array:
  """As one matrix product for all contributions of each pixel; overlaps are added up, and the margin cropped."""
  filters = _by_phase(kernel, strides)
  (batch, height, width, _), (_, tall, wide, *phase) = x.shape, filters.shape
  given = (x.reshape(-1, x.shape[-1]) @ filters.reshape(len(filters), -1)).reshape(x.shape[:3] + filters.shape[1:])
  y = sum(
    jnp.pad(given[:, :, :, i, j], ((0, 0), (i, tall - 1 - i), (j, wide - 1 - j), (0, 0), (0, 0), (0, 0)))
    for i in range(tall)
    for j in range(wide)
  )
  sides = (height + tall - 1) * strides[0], (width + wide - 1) * strides[1]
  y = y.transpose(0, 1, 3, 2, 4, 5).reshape(batch, *sides, phase[-1])
  sizes = zip(kernel.shape, x.shape[1:3], sides, strides, padding, strict=False)
  margins = [
    (low - size + 1, stride * (own - 1) + high + 1 - side, 0) for size, own, side, stride, (low, high) in sizes
  ]
  return lax.pad(y, jnp.zeros((), y.dtype), [(0, 0, 0), *margins, (0, 0, 0)])


def _by_phase(kernel: Array, strides: tuple[int, int]) -> Array:
  """Kernel as [channels, tall, wide, *strides, features]: the taps of each phase, zero-padded at the end."""
  (rows, columns, channels, features), (down, right) = kernel.shape, strides
  tall, wide = -(-rows // down), -(-columns // right)
  flipped = jnp.pad(kernel[::-1, ::-1], ((0, tall * down - rows), (0, wide * right - columns), (0, 0), (0, 0)))
  return flipped.reshape(tall, down, wide, right, channels, features).transpose(4, 0, 2, 1, 3, 5)


def _patches(
  x: Float[Array, 'batch height width'],
  window: tuple[int, int],
  strides: tuple[int, int],
  padding: Pads,
) -> Float[Array, 'window batch _ _']:
  """The patches of images that a kernel is applied to; the window's pixels are the first axis."""
  x = jnp.pad(x, ((0, 0), *padding))
  ends = [size - side + 1 for size, side in zip(x.shape[1:], window, strict=True)]
  shifted = [
    x[:, row : row + ends[0] : strides[0], column : column + ends[1] : strides[1]]
    for row in range(window[0])
    for column in range(window[1])
  ]
  return jnp.stack(shifted)
