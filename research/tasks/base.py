"""A Task is three pure functions, as an `optax.GradientTransformation` is two."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import flax
import jax
import jax.numpy as jnp
from jax import Array

from research.expected import Expected
from research.metrics import Mean, Metrics, filled
from research.types import Batch, PyTree

LOSS_SCALE = 'loss_scale'  # the only entry of `State.mutable` that is not a Linen collection
MEMORY = ('carry',)  # Linen collections with a batch axis, kept in `State.memory`


def _empty() -> Any:
  return flax.struct.field(default_factory=dict)


@flax.struct.dataclass
class State:
  """Everything that a step changes, as a pytree; all that a checkpoint needs."""

  step: Array  # int32 scalar: number of updates done
  params: PyTree  # what the optimizer updates
  mutable: PyTree = _empty()  # Linen collections that training changes; float16's loss scale
  memory: PyTree = _empty()  # carried from batch to batch, leaves [batch, ...]: recurrent carry, environments, replay
  opt_state: PyTree = _empty()
  ema: PyTree = _empty()  # averages of `params` and of batch statistics
  frozen: PyTree = _empty()  # collections that never change: a backbone, a teacher


class Task(NamedTuple):
  """How to initialize, train and evaluate; all three functions are pure and jittable.

  `expects` says what the arrays of a batch, of any size, must contain. `restarted` gives a State whose parameters were
  replaced a new optimizer state, which may hold copies of them.
  """

  init: Callable[[Array, Batch], State]  # (key, batch) -> state
  train_step: Callable[[State, Batch, Array], tuple[State, Metrics]]  # (state, batch, key)
  eval_step: Callable[[State, Batch, Array], Metrics]  # (state, batch, key)
  expects: Callable[[Batch], Mapping[str, Expected]] = lambda batch: {}
  restarted: Callable[[State], State] = lambda state: state


class Totals(NamedTuple):
  """Sums over the examples of a batch, which add up over micro-batches and devices."""

  gradients: PyTree  # of the loss's total
  loss: Mean
  metrics: Metrics


def variables(state: State, params: PyTree) -> dict[str, PyTree]:
  """Linen variables to train with: `params` and all other collections of a state."""
  return merged({'params': params, **collections_of(state), **state.memory}, state.frozen)


def evaluation_variables(state: State) -> dict[str, PyTree]:
  """Linen variables for evaluation, sampling and export: EMA collections replace the raw ones.

  Memory is left out, as it belongs to a training batch.
  """
  return merged({'params': state.params, **collections_of(state), **state.ema}, state.frozen)


def collections_of(state: State) -> dict[str, PyTree]:
  """The Linen collections in `State.mutable`."""
  return {name: value for name, value in state.mutable.items() if name != LOSS_SCALE}


def loss_scale(state: State) -> dict[str, PyTree]:
  """The loss scale in `State.mutable`, if any."""
  return {name: value for name, value in state.mutable.items() if name == LOSS_SCALE}


def merged(left: PyTree, right: PyTree) -> PyTree:
  """Merges two nested dicts with disjoint leaves."""
  return {**left, **{name: merged(left[name], tree) if name in left else tree for name, tree in right.items()}}


def moved(state: State, changed: PyTree) -> State:
  """`state` with the collections updated by a forward pass, except frozen ones."""
  mutable, memory = (
    {name: _at_paths_of(old, changed[name]) if name in changed else old for name, old in collections.items()}
    for collections in (state.mutable, state.memory)
  )
  return state.replace(mutable=mutable, memory=memory)


def _at_paths_of(old: PyTree, new: PyTree) -> PyTree:
  """The entries of a nested dict whose paths exist in `old`."""
  return {name: _at_paths_of(tree, new[name]) for name, tree in old.items()} if isinstance(old, dict) else new


def without_masked_inputs(batch: Batch) -> Batch:
  """Zeroes the inputs of fully masked examples: NaN inputs would make the gradient 0 * NaN."""
  if 'mask' not in batch:
    return batch
  counts = batch['mask'].reshape(len(batch['mask']), -1).max(axis=1)

  def without(leaf: Array) -> Array:
    return filled(leaf, counts) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf

  return {**batch, 'inputs': jax.tree.map(without, batch['inputs'])}


def total_gradient(loss: Callable[[PyTree], tuple[Mean, Metrics, PyTree]], params: PyTree) -> tuple[Totals, PyTree]:
  """Totals over a batch, and the updated collections; `loss(params)` returns (loss, metrics, collections)."""

  def total(params: PyTree) -> tuple[Array, tuple[Mean, Metrics, PyTree]]:
    value, metrics, mutable = loss(params)
    return value.total, (value, metrics, mutable)

  gradients, (value, metrics, mutable) = jax.grad(total, has_aux=True)(params)
  return Totals(gradients, value, metrics), mutable


def mean_gradient(totals: Totals) -> PyTree:
  """Gradient of the mean loss: that of the total over the count, or 0 if the count is 0."""
  return jax.tree.map(lambda leaf: _over_count(leaf, totals.loss.count), totals.gradients)


def mean_loss(totals: Totals) -> Array:
  """The mean loss, or 0 if the count is 0."""
  return _over_count(totals.loss.total, totals.loss.count)


def _over_count(total: Array, count: Array) -> Array:
  empty = count == 0
  return jnp.where(empty, 0, total / jnp.where(empty, 1, count))


def unless_empty(new: State, old: State, loss: Mean) -> State:
  """`new`, or `old` if the loss's count is 0, so that momentum and weight decay change nothing."""
  return jax.tree.map(lambda after, before: jnp.where(loss.count == 0, before, after), new, old)


def in_dtypes_of(old: PyTree, new: PyTree) -> PyTree:
  """`new` in the dtypes of `old`, for trees that are carried from step to step.

  With JAX_ENABLE_X64 some leaves stay float32, such as Linen's batch statistics.
  """
  return jax.tree.map(lambda before, after: after.astype(before.dtype), old, new)


def reduce(totals: Totals, axis_name: str) -> Totals:
  """Sums over the devices of a mapped axis; without a name the identity, as the compiler sees the whole batch."""
  return jax.lax.psum(totals, axis_name) if axis_name else totals
