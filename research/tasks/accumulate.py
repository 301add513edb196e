"""A batch taken in micro-batches, one after another: the memory of one, the gradient of all."""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jax import Array

from research.tasks.base import State, Totals, in_dtypes_of
from research.types import Batch, PyTree

# (state, batch, key, number of the micro-batch) -> sums over the batch, collections that changed
Gradient = Callable[..., tuple[Totals, PyTree]]


def accumulated(gradient: Gradient, micro_batches: int) -> Gradient:
  """`gradient` of (state, batch, key), summed over so many micro-batches; with 1 the whole batch is number 0.

  Their number must divide the batch. Totals and counts are summed and divided once, so that masks may be uneven. Batch
  norm normalises each micro-batch by itself, and its statistics move once a micro-batch: with it the step is not that
  of the whole batch. Noise by an example's index is the same as without; dropout draws anew for each `number`.
  """
  whole = partial(gradient, number=0)
  if micro_batches == 1:
    return whole

  def summed(state: State, batch: Batch, key: Array) -> tuple[Totals, PyTree]:
    parts = jax.tree.map(lambda leaf: _split(leaf, micro_batches), batch)
    shapes, _ = jax.eval_shape(whole, state, batch, key)
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)

    def add(carry, part):
      (sums, mutable), (number, rows) = carry, part
      totals, changed = gradient(state.replace(mutable=mutable), rows, key, number)
      return (jax.tree.map(jnp.add, sums, totals), in_dtypes_of(mutable, {**mutable, **changed})), None

    numbers = jnp.arange(micro_batches, dtype=jnp.int32)
    return jax.lax.scan(add, (zeros, state.mutable), (numbers, parts))[0]

  return summed


def _split(leaf: Array, micro_batches: int) -> Array:
  """Rows [batch, ...] as [micro_batches, rows, ...]."""
  # Micro-batch j has the rows j, j + k, j + 2k, ...: a device that holds a run of rows keeps its share of each
  # micro-batch, where micro-batches of neighbouring rows would have to be sent around.
  return leaf.reshape(-1, micro_batches, *leaf.shape[1:]).swapaxes(0, 1)
