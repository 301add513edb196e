"""A Task is three pure functions, as an `optax.GradientTransformation` is two."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import flax
import jax
import jax.numpy as jnp
from jax import Array

from research.expected import Expected
from research.metrics import Mean, Metrics, filled
from research.types import Batch, PyTree

LOSS_SCALE = 'loss_scale'  # the one entry of `State.mutable` that is no Linen collection


@flax.struct.dataclass
class State:
  """Everything that a step changes; a pytree, and all that a checkpoint needs."""

  step: Array  # int32 scalar: number of updates done
  params: PyTree
  mutable: PyTree  # Linen collections that training changes, such as batch statistics; float16's loss scale
  opt_state: PyTree
  ema: PyTree  # averaged collections, `params` and `batch_stats`; empty where unused
  frozen: PyTree  # collections without an optimizer: a teacher, a backbone; empty where unused


class Task(NamedTuple):
  """How to begin, how to take a step and how to measure; all three are pure and jittable.

  `expects` tells, of a batch of any number of examples, what its arrays must hold.
  """

  init: Callable[[Array, Batch], State]  # (key, batch) -> state
  train_step: Callable[[State, Batch, Array], tuple[State, Metrics]]  # (state, batch, key)
  eval_step: Callable[[State, Batch, Array], Metrics]  # (state, batch, key)
  expects: Callable[[Batch], Mapping[str, Expected]] = lambda batch: {}


class Totals(NamedTuple):
  """Sums over the examples of a batch, which add up over micro-batches and devices."""

  gradients: PyTree  # of the loss's total
  loss: Mean
  metrics: Metrics


def variables(state: State, params: PyTree) -> dict[str, PyTree]:
  """Linen variables of a model with `params` and the collections of a state."""
  collections = {name: value for name, value in state.mutable.items() if name != LOSS_SCALE}
  return {'params': params, **collections, **state.frozen}


def evaluation_variables(state: State) -> dict[str, PyTree]:
  """Linen variables to evaluate, sample and export with: averages in place of what they are averages of."""
  return {**variables(state, state.params), **state.ema}


def without_masked_inputs(batch: Batch) -> Batch:
  """0 for the inputs of examples of which nothing counts: one that is NaN would make a gradient of 0 times NaN."""
  if 'mask' not in batch:
    return batch
  counts = batch['mask'].reshape(len(batch['mask']), -1).max(axis=1)

  def without(leaf: Array) -> Array:
    return filled(leaf, counts) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf

  return {**batch, 'inputs': jax.tree.map(without, batch['inputs'])}


def total_gradient(loss: Callable[[PyTree], tuple[Mean, Metrics, PyTree]], params: PyTree) -> tuple[Totals, PyTree]:
  """Sums over a batch, and the collections that changed; `loss(params)` returns (loss, metrics, collections)."""

  def total(params: PyTree) -> tuple[Array, tuple[Mean, Metrics, PyTree]]:
    value, metrics, mutable = loss(params)
    return value.total, (value, metrics, mutable)

  gradients, (value, metrics, mutable) = jax.grad(total, has_aux=True)(params)
  return Totals(gradients, value, metrics), mutable


def mean_gradient(totals: Totals) -> PyTree:
  """Gradient of a mean loss: that of the total over the count, and 0 where nothing counts."""
  count = totals.loss.count
  empty = count == 0
  return jax.tree.map(lambda leaf: jnp.where(empty, 0, leaf / jnp.where(empty, 1, count)), totals.gradients)


def unless_empty(new: State, old: State, loss: Mean) -> State:
  """`new`, or `old` one step later where nothing counts in `loss`: neither momentum nor weight decay moves anything."""
  kept = old.replace(step=new.step)
  return jax.tree.map(lambda after, before: jnp.where(loss.count == 0, before, after), new, kept)


def in_dtypes_of(old: PyTree, new: PyTree) -> PyTree:
  """`new` in the dtypes of `old`, for what is carried from step to step.

  Where JAX_ENABLE_X64 makes numbers wider, some leaves stay float32, such as Linen's batch statistics.
  """
  return jax.tree.map(lambda before, after: after.astype(before.dtype), old, new)


def reduce(totals: Totals, axis_name: str) -> Totals:
  """Sums over the devices of a mapped axis; without a name what is given, for the compiler sees the whole batch."""
  return jax.lax.psum(totals, axis_name) if axis_name else totals
