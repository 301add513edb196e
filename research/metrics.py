"""Means that are exact over masks, micro-batches and devices: totals and counts, divided once at the end."""

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Num


class Mean(NamedTuple):
  """A total and a count; means add up without bias."""

  total: Num[Array, '']
  count: Num[Array, '']


Metrics = dict[str, Mean]


def mean(values: Num[Array, 'batch ...'], mask: Num[ArrayLike, 'batch ...'] | None = None) -> Mean:
  """Mean of `values`; examples or positions whose `mask` is 0 do not count.

  `mask` has the leading axes of `values` and entries 0 or 1.

  Summed in float32 at least: bfloat16 cannot count to 257.
  """
  dtype = jnp.promote_types(values.dtype, jnp.float32)
  if mask is None:
    return Mean(jnp.sum(values, dtype=dtype), jnp.asarray(values.size, dtype))
  weight = spread(mask, values)
  return Mean(jnp.sum(jnp.where(weight > 0, values, 0), dtype=dtype), jnp.sum(weight, dtype=dtype))


def filled(targets: Num[ArrayLike, 'batch ...'], mask: Num[ArrayLike, 'batch ...'] | None) -> Num[Array, 'batch ...']:
  """Targets with 0 where `mask` is 0: a masked NaN or invalid class would make the gradient NaN."""
  targets = jnp.asarray(targets)
  return targets if mask is None else jnp.where(spread(mask, targets) > 0, targets, 0)


def spread(mask: Num[ArrayLike, 'batch ...'], values: Num[ArrayLike, 'batch ...']) -> Num[Array, 'batch ...']:
  """The mask broadcast from the leading axes to the shape of `values`."""
  return jnp.broadcast_to(jnp.expand_dims(mask, range(jnp.ndim(mask), jnp.ndim(values))), jnp.shape(values))


def add(left: Metrics, right: Metrics) -> Metrics:
  """Adds two sets of metrics with the same names."""
  return {name: Mean(*map(jnp.add, left[name], right[name])) for name in left}


def compute(metrics: Metrics, prefix: str = '') -> dict[str, float]:
  """Divides totals by counts, on the host; metrics with a count of 0 are left out."""
  return {prefix + name: float(mean.total) / float(mean.count) for name, mean in metrics.items() if mean.count}
