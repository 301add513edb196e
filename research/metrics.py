"""Means that stay exact over masks, micro-batches and devices: totals and counts, divided once."""

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
  weight = spread(mask, values)
  return Mean(jnp.sum(jnp.where(weight > 0, values, 0), dtype=dtype), jnp.sum(weight, dtype=dtype))


def filled(targets: Num[ArrayLike, 'batch ...'], mask: Num[ArrayLike, 'batch ...'] | None) -> Num[Array, 'batch ...']:
  """0 for the targets whose `mask` is 0: one of them that is NaN or no class would spoil the gradient."""
  targets = jnp.asarray(targets)
  return targets if mask is None else jnp.where(spread(mask, targets) > 0, targets, 0)


def spread(mask: Num[ArrayLike, 'batch ...'], values: Num[ArrayLike, 'batch ...']) -> Num[Array, 'batch ...']:
  """The mask in the shape of `values`, whose first axes it has."""
  return jnp.broadcast_to(jnp.expand_dims(mask, range(jnp.ndim(mask), jnp.ndim(values))), jnp.shape(values))


def add(left: Metrics, right: Metrics) -> Metrics:
  """Sums two sets of metrics of the same names."""
  return {name: Mean(*map(jnp.add, left[name], right[name])) for name in left}


def compute(metrics: Metrics, prefix: str = '') -> dict[str, float]:
  """Divides every total by its count, on the host; a metric for which nothing counted has no value and is left out."""
  return {prefix + name: float(mean.total) / float(mean.count) for name, mean in metrics.items() if mean.count}
