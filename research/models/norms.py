"""Normalization layers by name; parameters have the names and shapes of `flax.linen`'s."""

from collections.abc import Callable

import jax.numpy as jnp
from flax import linen as nn
from jax import Array, lax
from jax.typing import ArrayLike, DTypeLike
from jaxtyping import Bool, Float

from research.errors import ConfigError, unknown
from research.ops.norm import normalized
from research.ops.standardize import standardized

Init = nn.initializers.Initializer
NORMS = ('', 'batch', 'layer', 'group')
GROUP = 16  # channels per group, or all if there are fewer


def norm(
  kind: str, channels: int, train: bool, name: str, axis_name: str = '', scale_init: Init = nn.initializers.ones
) -> Callable[..., Array]:
  """A layer called `name` that normalizes `channels` features: `kind` is 'batch', 'layer', 'group', or '' for none.

  Under pmap the batch of 'batch' spans the devices of `axis_name`. Raises ConfigError for an unknown kind, and for
  a number of channels that groups do not divide.
  """
  match kind:
    case '':
      return lambda x: x
    case 'batch':
      return BatchNorm(train, axis_name, scale_init, name=name)
    case 'layer':
      return LayerNorm(scale_init, name=name)
    case 'group':
      if channels % min(GROUP, channels):
        raise ConfigError(f"norm: 'group' of {channels} channels; must be fewer than {GROUP}, or a multiple of it")
      return GroupNorm(scale_init, name=name)
  raise ConfigError(f'norm={kind!r}: {unknown(kind, NORMS)}')


class BatchNorm(nn.Module):
  """Batch statistics in training, running averages in evaluation (Ioffe and Szegedy 2015)."""

  train: bool
  axis_name: str = ''
  scale_init: Init = nn.initializers.ones

  @nn.compact
  def __call__(
    self, x: Float[ArrayLike, '*shape channels'], mask: Bool[Array, '*shape channels'] | None = None
  ) -> Float[Array, '*shape channels']:
    """Positions where `mask` is False are excluded from the statistics."""
    shape = (1,) * (x.ndim - 1) + x.shape[-1:]
    running = [
      self.variable('batch_stats', name, init, x.shape[-1:]) for name, init in (('mean', jnp.zeros), ('var', jnp.ones))
    ]
    if not self.train:
      mean, variance = (statistic.value.reshape(shape) for statistic in running)
      return _scaled(self, (x - mean) * lax.rsqrt(variance + 1e-5), x.dtype)
    first = self.is_initializing()  # no mapped axis yet, and no update
    axis_name = '' if first else self.axis_name
    y, *batch = normalized(x, *_scale_and_bias(self, x), 0, 1e-5, mask, axis_name)
    for statistic, new in () if first else zip(running, batch, strict=True):
      statistic.value = 0.9 * statistic.value + 0.1 * new
    return y.astype(x.dtype)


class LayerNorm(nn.Module):
  """Statistics over the features of each position (Ba, Kiros and Hinton 2016)."""

  scale_init: Init = nn.initializers.ones

  @nn.compact
  def __call__(self, x: Float[ArrayLike, '*shape channels']) -> Float[Array, '*shape channels']:
    return _scaled(self, standardized(x, (-1,), 1e-6)[0], x.dtype)


class GroupNorm(nn.Module):
  """Statistics over groups of 16 channels of an example and all its positions (Wu and He 2018)."""

  scale_init: Init = nn.initializers.ones

  @nn.compact
  def __call__(
    self, x: Float[ArrayLike, 'batch *shape channels'], mask: Bool[Array, 'batch *shape channels'] | None = None
  ) -> Float[Array, 'batch *shape channels']:
    """Positions where `mask` is False are excluded from the statistics."""
    y, _, _ = normalized(x, *_scale_and_bias(self, x), min(GROUP, x.shape[-1]), 1e-5, mask)
    return y.astype(x.dtype)


def _scaled(layer: nn.Module, y: Float[Array, '*shape channels'], dtype: DTypeLike) -> Float[Array, '*shape channels']:
  """`y` times the layer's scale, plus its bias, as `dtype`."""
  row = (1,) * (y.ndim - 1) + y.shape[-1:]
  scale, bias = (values.reshape(row) for values in _scale_and_bias(layer, y))
  return (y * scale + bias).astype(dtype)


def _scale_and_bias(layer: nn.Module, x: ArrayLike) -> tuple[ArrayLike, ArrayLike]:
  shape = x.shape[-1:]
  return layer.param('scale', layer.scale_init, shape), layer.param('bias', nn.initializers.zeros, shape)
