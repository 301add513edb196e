"""Normalization with statistics over whole images: per channel over a batch, or per group within an example."""

import math
from functools import partial

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.typing import ArrayLike
from jaxtyping import Bool, Float

from research.ops.kernels import choose
from research.ops.standardize import standardized


def normalized(
  x: Float[ArrayLike, 'batch *shape channels'],
  scale: Float[ArrayLike, ' channels'],
  bias: Float[ArrayLike, ' channels'],
  group: int,
  epsilon: float,
  mask: Bool[Array, 'batch *shape channels'] | None = None,
  axis_name: str = '',
) -> tuple[Float[Array, 'batch *shape channels'], Float[Array, '...'], Float[Array, '...']]:
  """`x` normalized to mean 0 and variance 1, times `scale` plus `bias`; also the mean and the variance, squeezed.

  All are at least float32.

  Args:
    group: number of channels of an example that share their statistics; 0 for per-channel statistics over the batch.
    epsilon, mask, axis_name: as in `standardized`.
  """
  options = {'group': group, 'epsilon': epsilon}
  if mask is not None or axis_name:
    return _plain(x, scale, bias, **options, mask=mask, axis_name=axis_name)
  return choose('norm', _fast, _plain, x, scale, bias, **options)


def _plain(x, scale, bias, group, epsilon, mask=None, axis_name=''):
  axes = (*range(1, x.ndim - 1), x.ndim) if group else tuple(range(x.ndim - 1))
  parted = lambda x: x.reshape(*x.shape[:-1], -1, group) if group and x is not None else x  # noqa: E731
  y, *statistics = standardized(parted(x), axes, epsilon, parted(mask), axis_name)
  y = y.reshape(x.shape) * _row(scale, x) + _row(bias, x)
  return y, *(statistic.squeeze(axes) for statistic in statistics)


def _row(values: Array, x: Array) -> Array:
  return values.reshape((1,) * (x.ndim - 1) + values.shape)


def _fast(x, scale, bias, group, epsilon):
  rows = x.reshape(x.shape[0], math.prod(x.shape[1:-1]), x.shape[-1]).astype(jnp.promote_types(x.dtype, jnp.float32))
  y, mean, variance = _of_rows(rows, scale, bias, group, epsilon)
  one = (slice(None), slice(None, None, group)) if group else 0
  return y.reshape(x.shape), mean[one], variance[one]


def _averaged(rows: Float[Array, 'batch rows channels'], group: int) -> Float[Array, '... channels']:
  """Mean for each channel over what it shares its statistics with: first over the rows, which are many."""
  means = rows.mean(1)
  if not group:
    return means.mean(0, keepdims=True)
  means = means.reshape(means.shape[0], -1, group)
  return jnp.broadcast_to(means.mean(-1, keepdims=True), means.shape).reshape(means.shape[0], -1)


@partial(jax.custom_jvp, nondiff_argnums=(3, 4))
def _of_rows(x, scale, bias, group, epsilon):
  return _with_inverse(x, scale, bias, group, epsilon)[:3]


def _with_inverse(x, scale, bias, group, epsilon):
  mean = _averaged(x, group)
  centered = x - mean[:, None]
  variance = _averaged(jnp.square(centered), group)
  inverse = lax.rsqrt(variance + epsilon)
  y = centered * (inverse * scale[None])[:, None] + bias[None, None]
  return y, mean, variance, centered, inverse


@_of_rows.defjvp
def _of_rows_jvp(group, epsilon, primals, tangents):
  """Written so that its transpose takes two sums over the pixels for all three gradients, and one more pass."""
  (x, scale, bias), (dx, dscale, dbias) = primals, tangents
  y, mean, variance, centered, inverse = _with_inverse(x, scale, bias, group, epsilon)
  dmean, covariance = _averaged(dx, group), _averaged(centered * dx, group)
  gain = inverse * scale[None]
  shift = dbias[None] - gain * dmean
  slope = inverse * dscale[None] - gain * jnp.square(inverse) * covariance
  each = lambda values: jnp.broadcast_to(values, (x.shape[0], x.shape[-1]))[:, None]  # noqa: E731
  dy = gain[:, None] * dx + each(shift) + centered * each(slope)
  return (y, mean, variance), (dy, dmean, 2 * covariance)
