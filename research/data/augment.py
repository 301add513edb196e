"""Augmentation on the device, inside the step: each example's change depends on its global index alone.

An augmentation is `(batch, key) -> batch`. It reads the images `inputs`, uint8 or float, keeps their dtype and
shape, and fills what it uncovers with zeros unless it says otherwise. A negative number raises ConfigError.
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
  """One augmentation after the other, each with a key of its own."""

  def augment(batch: Batch, key: Key[Array, '']) -> Batch:
    for number, augmentation in enumerate(augmentations):
      batch = augmentation(batch, jax.random.fold_in(key, number))
    return batch

  return augment


def shift(pixels: int) -> Augmentation:
  """Moves by up to `pixels` along both axes: a random crop of the zero-padded image (He et al., 2015)."""
  check_count('shift', pixels, at_least=0)
  return _moved(pixels, 'constant')


def crop(padding: int) -> Augmentation:
  """Random crop of the image padded by its own mirror image: `shift` without a border of zeros."""
  check_count('crop', padding, at_least=0)
  return _moved(padding, 'reflect')


def flip() -> Augmentation:
  """Mirrors left and right, one example in two."""

  def augment(images: Images, draw: Float[Array, 'batch 1']) -> Images:
    column = jnp.arange(images.shape[2])[None]
    # One gather: XLA would fuse a choice between two images with, and so repeat, what made them.
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
  """Turns by up to `degrees`, zooms by 1 - `zoom` to 1 + `zoom` and moves by up to `pixels`, bilinearly.

  The four numbers are uniform, and all is done in one resampling about the middle of the image. `zoom` is below 1.
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
  """Whole numbers from 0 to `limit` - 1; rounding must not make one out of the largest uniform numbers."""
  return jnp.minimum((uniform * limit).astype(jnp.int32), limit - 1)


def _in_square(draw: Float[Array, 'batch 1'], length: int, size: int) -> Bool[Array, 'batch length']:
  """Which pixels of an axis lie in the square around the drawn one."""
  start = _integer(draw, length) - size // 2
  pixels = jnp.arange(length)[None]
  return (pixels >= start) & (pixels < start + size)


def _resampled(
  images: Images, angle: Float[Array, ' batch'], factor: Float[Array, ' batch'], offset: Float[Array, 'batch 2']
) -> Images:
  """Bilinear values at the places that the pixels come from under a rotation, a zoom and a shift."""
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
  """Values of `images` at real-valued places; outside all is zero.

  A border of zeros takes the place of masks: places beyond it are clipped to where all four corners are zero.
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
