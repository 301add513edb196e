"""Image augmentation on the device, inside the step; randomness depends on the example's global index.

An augmentation is `(batch, key) -> batch`. It reads the images `inputs`, uint8 or float, keeps their dtype and
shape, and fills uncovered pixels with zeros unless stated otherwise. Negative values raise ConfigError.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float, Int, Key, Num

from research.errors import check_count, check_range
from research.random import per_example
from research.types import Batch

Images = Num[Array, 'batch height width channels']
Augmentation = Callable[[Batch, Array], Batch]


def chain(*augmentations: Augmentation) -> Augmentation:
  """Applies augmentations in order, each with its own key."""

  def augment(batch: Batch, key: Key[Array, '']) -> Batch:
    for number, augmentation in enumerate(augmentations):
      batch = augmentation(batch, jax.random.fold_in(key, number))
    return batch

  return augment


def shift(pixels: int) -> Augmentation:
  """Random translation by up to `pixels` along both axes: a random crop of the zero-padded image (He et al., 2015)."""
  check_count('shift', pixels, at_least=0)
  return _moved(pixels, 'constant')


def crop(padding: int) -> Augmentation:
  """Random crop of the reflection-padded image: `shift` without a border of zeros."""
  check_count('crop', padding, at_least=0)
  return _moved(padding, 'reflect')


def flip() -> Augmentation:
  """Flips images horizontally with probability 1/2."""

  def augment(images: Images, draw: Float[Array, 'batch 1']) -> Images:
    column = jnp.arange(images.shape[2])[None]
    # A single gather: XLA would fuse a select between two images with their computation, and repeat it.
    source = jnp.where(draw < 0.5, column[:, ::-1], column)[:, None, :, None]
    return jnp.take_along_axis(images, source, axis=2, mode='promise_in_bounds')

  return _augmentation(augment, draws=1)


def cutout(size: int) -> Augmentation:
  """Zeros a square of `size` pixels around a random pixel (DeVries and Taylor, 2017, arXiv:1708.04552)."""
  check_count('cutout', size, at_least=0)

  def augment(images: Images, draw: Float[Array, 'batch 2']) -> Images:
    rows = _in_square(draw[:, :1], images.shape[1], size)
    columns = _in_square(draw[:, 1:], images.shape[2], size)
    return jnp.where((rows[:, :, None] & columns[:, None, :])[..., None], 0, images)

  return _augmentation(augment, draws=2)


def affine(degrees: float = 0.0, zoom: float = 0.0, pixels: float = 0.0) -> Augmentation:
  """Random rotation by up to `degrees`, scaling by 1 - `zoom` to 1 + `zoom` and translation by up to `pixels`.

  All are uniform and applied in a single bilinear resampling around the image center. `zoom` must be below 1.
  """
  check_range('degrees', degrees)
  check_range('zoom', zoom, below=1)
  check_range('pixels', pixels)

  def augment(images: Images, draw: Float[Array, 'batch 4']) -> Images:
    draw = 2 * draw - 1
    angle, factor = jnp.deg2rad(degrees * draw[:, 0]), 1 + zoom * draw[:, 1]
    return _resampled(images, angle, factor, pixels * draw[:, 2:])

  return _augmentation(augment, draws=4)


def _augmentation(change: Callable[[Array, Array], Array], draws: int) -> Augmentation:
  """Lifts `change(images, uniform [batch, draws])` to batches."""

  def augment(batch: Batch, key: Key[Array, '']) -> Batch:
    keys = per_example(key, batch['index'])
    uniform = jax.vmap(lambda key: jax.random.uniform(key, (draws,)))(keys)
    return {**batch, 'inputs': change(batch['inputs'], uniform)}

  return augment


def _moved(reach: int, mode: str) -> Augmentation:
  def augment(images: Images, draw: Float[Array, 'batch 2']) -> Images:
    padded = jnp.pad(images, ((0, 0), (reach, reach), (reach, reach), (0, 0)), mode=mode)
    offset = _integer(draw, 2 * reach + 1)
    window = jax.vmap(lambda image, at: jax.lax.dynamic_slice(image, (*at, jnp.zeros_like(at[0])), images.shape[1:]))
    return window(padded, offset)

  return _augmentation(augment, draws=2)


def _integer(uniform: Float[Array, '*shape'], limit: int) -> Int[Array, '*shape']:
  """Integers from 0 to `limit` - 1, even if the largest uniform numbers round up."""
  return jnp.minimum((uniform * limit).astype(jnp.int32), limit - 1)


def _in_square(draw: Float[Array, 'batch 1'], length: int, size: int) -> Bool[Array, 'batch length']:
  """Which pixels along an axis lie in the square around the drawn pixel."""
  start = _integer(draw, length) - size // 2
  pixels = jnp.arange(length)[None]
  return (pixels >= start) & (pixels < start + size)


def _resampled(
  images: Images, angle: Float[Array, ' batch'], factor: Float[Array, ' batch'], offset: Float[Array, 'batch 2']
) -> Images:
  """Images resampled bilinearly under a rotation, a scaling and a translation."""
  height, width = images.shape[1:3]
  row = jnp.arange(height)[None, :, None] - (height - 1) / 2 - offset[:, 0, None, None]
  column = jnp.arange(width)[None, None, :] - (width - 1) / 2 - offset[:, 1, None, None]
  cosine = (jnp.cos(angle) / factor)[:, None, None]
  sine = (jnp.sin(angle) / factor)[:, None, None]
  source_row = cosine * row + sine * column + (height - 1) / 2
  source_column = cosine * column - sine * row + (width - 1) / 2
  return _bilinear(images, source_row, source_column)


def _bilinear(
  images: Images, row: Float[Array, 'batch height width'], column: Float[Array, 'batch height width']
) -> Images:
  """Bilinear interpolation of `images` at real-valued positions; zero outside.

  A border of zeros replaces masks: positions beyond it are clipped to where all four corners are zero.
  """
  batch, height, width, channels = images.shape
  row, column = jnp.clip(row + 2, 0, height + 2), jnp.clip(column + 2, 0, width + 2)
  top, left = jnp.floor(row).astype(jnp.int32), jnp.floor(column).astype(jnp.int32)
  down, right = (row - top)[..., None], (column - left)[..., None]
  padded = jnp.pad(images, ((0, 0), (2, 2), (2, 2), (0, 0))).reshape(-1, channels)
  stride = width + 4
  corner = (jnp.arange(batch)[:, None, None] * (height + 4) + top) * stride + left
  upper, lower = (
    (1 - right) * _gathered(padded, first) + right * _gathered(padded, first + 1) for first in (corner, corner + stride)
  )
  values = (1 - down) * upper + down * lower
  rounded = jnp.round(values) if jnp.issubdtype(images.dtype, jnp.integer) else values
  return rounded.astype(images.dtype)


def _gathered(values: Num[Array, 'pixels channels'], places: Int[Array, '*shape']) -> Float[Array, '*shape channels']:
  return values.at[places].get(mode='promise_in_bounds').astype(jnp.float32)
