"""Time series augmentation on the device; randomness depends on the example's global index.

An augmentation is `(batch, key) -> batch`, as in `augment.py`, of `inputs` [batch, length, features]. If the batch
has `lengths`, each series is transformed within its own length. Negative values raise ConfigError.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Int, Key

from research.data.augment import Augmentation, chain
from research.errors import check_count, check_range
from research.random import per_example
from research.types import Batch

Series = Float[Array, 'length features']


def varied(stretch_fraction: float, steps: int, factor: float, std: float) -> Augmentation:
  """`stretch`, `shift`, `scale` and `jitter`, in this order."""
  return chain(stretch(stretch_fraction), shift(steps), scale(factor), jitter(std))


def jitter(std: float) -> Augmentation:
  """Adds normal noise to every value (Um et al., 2017, arXiv:1706.00527, as the next two)."""
  check_range('jitter', std)
  return _augmentation(lambda series, length, key: series + std * jax.random.normal(key, series.shape))


def scale(std: float) -> Augmentation:
  """Multiplies each feature of a series by a normal random number with mean 1."""
  check_range('scale', std)

  def augment(series: Series, length: Int[Array, ''], key: Key[Array, '']) -> Series:
    return series * (1 + std * jax.random.normal(key, (1, series.shape[1])))

  return _augmentation(augment)


def stretch(fraction: float) -> Augmentation:
  """Stretches a series in time around its middle by a factor of 1 - `fraction` to 1 + `fraction`; the ends are held."""
  check_range('stretch', fraction, below=1)

  def augment(series: Series, length: Int[Array, ''], key: Key[Array, '']) -> Series:
    factor = 1 + fraction * jax.random.uniform(key, minval=-1.0)
    middle = (length - 1) / 2
    return _at(series, middle + factor * (jnp.arange(len(series)) - middle), length)

  return _augmentation(augment)


def shift(steps: int) -> Augmentation:
  """Shifts a series in time by up to `steps`; the ends are held."""
  check_count('shift', steps, at_least=0)

  def augment(series: Series, length: Int[Array, ''], key: Key[Array, '']) -> Series:
    return _at(series, jnp.arange(len(series)) - jax.random.randint(key, (), -steps, steps + 1), length)

  return _augmentation(augment)


def _augmentation(change: Callable[[Array, Array, Array], Array]) -> Augmentation:
  """Lifts `change(series, length, key)` to batches."""

  def augment(batch: Batch, key: Key[Array, '']) -> Batch:
    inputs, keys = batch['inputs'], per_example(key, batch['index'])
    lengths = batch.get('lengths', jnp.full(inputs.shape[0], inputs.shape[1]))
    return {**batch, 'inputs': jax.vmap(change)(inputs, lengths, keys)}

  return augment


def _at(series: Series, place: Float[Array, ' length'] | Int[Array, ' length'], length: Int[Array, '']) -> Series:
  """Linear interpolation at real-valued positions."""
  place = jnp.clip(place, 0, length - 1)
  first = jnp.floor(place).astype(jnp.int32)
  fraction = (place - first)[:, None]
  return (1 - fraction) * series[first] + fraction * series[jnp.minimum(first + 1, length - 1)]
