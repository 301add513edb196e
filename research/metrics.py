"""Means that stay exact over masks, micro-batches and devices: totals and counts, divided once."""

import math
from typing import NamedTuple

import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Num


class Mean(NamedTuple):
  """A sum and the number of things summed; two of them add up without bias."""

  total: Num[Array, '']
  count: Num[Array, '']


Metrics = dict[str, Mean]


def mean(values: Num[Array, 'batch ...'], mask: Num[ArrayLike, 'batch ...'] | None = None) -> Mean:
  """Mean of `values`; examples, or positions of examples, whose `mask` is 0 do not count.

  The axes of `mask` are the first ones of `values`; its entries are 0 or 1.

  Summed in float32 at least: bfloat16 cannot count to 257.
  """
  dtype = jnp.promote_types(values.dtype, jnp.float32)
  if mask is None:
    return Mean(jnp.sum(values, dtype=dtype), jnp.asarray(values.size, dtype))
  weight = _spread(mask, values)
  return Mean(jnp.sum(jnp.where(weight > 0, values, 0), dtype=dtype), jnp.sum(weight, dtype=dtype))


def filled(targets: Num[ArrayLike, 'batch ...'], mask: Num[ArrayLike, 'batch ...'] | None) -> Num[Array, 'batch ...']:
  """0 for the targets whose `mask` is 0: one of them that is NaN, as a missing value is, would spoil the gradient."""
  targets = jnp.asarray(targets)
  return targets if mask is None else jnp.where(_spread(mask, targets) > 0, targets, 0)


def _spread(mask: Num[ArrayLike, 'batch ...'], values: Num[Array, 'batch ...']) -> Num[Array, 'batch ...']:
  """The mask in the shape of `values`, whose first axes it has."""
  return jnp.broadcast_to(jnp.expand_dims(mask, range(jnp.ndim(mask), values.ndim)), values.shape)


def add(left: Metrics, right: Metrics) -> Metrics:
  """Sums two sets of metrics of the same names."""
  return {name: Mean(*map(jnp.add, left[name], right[name])) for name in left}


def compute(metrics: Metrics, prefix: str = '') -> dict[str, float]:
  """Divides every total by its count, NaN where nothing was counted; on the host."""
  return {
    prefix + name: float(mean.total) / float(mean.count) if mean.count else math.nan for name, mean in metrics.items()
  }
