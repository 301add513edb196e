"""Gradient accumulation over micro-batches."""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jax import Array

from research.tasks.base import State, Totals, in_dtypes_of
from research.types import Batch, PyTree

# (state, batch, key, number of the micro-batch) -> sums over the batch, state with the updated collections
Gradient = Callable[..., tuple[Totals, State]]


def accumulated(gradient: Gradient, micro_batches: int) -> Gradient:
  """`gradient` of (state, batch, key), summed over micro-batches; with 1 the whole batch is number 0.

  Their number must divide the batch. Totals and counts are summed and divided once, so masks may be uneven. Memory is
  split with its rows. Batch norm normalizes each micro-batch separately and updates its statistics once per
  micro-batch, so the step differs from that of the whole batch. Per-example noise is the same; dropout differs by
  `number`.
  """
  whole = partial(gradient, number=0)
  if micro_batches == 1:
    return whole

  def summed(state: State, batch: Batch, key: Array) -> tuple[Totals, State]:
    rows, memory = jax.tree.map(lambda leaf: _split(leaf, micro_batches), (batch, state.memory))
    shapes, _ = jax.eval_shape(whole, state, batch, key)
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)

    def add(carry: tuple[Totals, PyTree], part: tuple) -> tuple[tuple[Totals, PyTree], PyTree]:
      (sums, mutable), (number, rows, memory) = carry, part
      totals, after = gradient(state.replace(mutable=mutable, memory=memory), rows, key, number)
      return (jax.tree.map(jnp.add, sums, totals), in_dtypes_of(mutable, after.mutable)), after.memory

    numbers = jnp.arange(micro_batches, dtype=jnp.int32)
    (totals, mutable), memory = jax.lax.scan(add, (zeros, state.mutable), (numbers, rows, memory))
    return totals, state.replace(mutable=mutable, memory=jax.tree.map(_joined, memory))

  return summed


def _split(leaf: Array, micro_batches: int) -> Array:
  """Rows [batch, ...] as [micro_batches, rows, ...]."""
  # Micro-batch j has the rows j, j + k, j + 2k, ...: a device with contiguous rows keeps its share of each
  # micro-batch, whereas contiguous micro-batches would have to be moved between devices.
  return leaf.reshape(-1, micro_batches, *leaf.shape[1:]).swapaxes(0, 1)


def _joined(leaf: Array) -> Array:
  """Undoes `_split`."""
  return leaf.swapaxes(0, 1).reshape(-1, *leaf.shape[2:])
