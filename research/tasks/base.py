"""A Task is three pure functions, as an `optax.GradientTransformation` is two."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import flax
import jax
from jax import Array

from research.metrics import Mean, Metrics

Batch = Mapping[str, Array]
PyTree = Any


@flax.struct.dataclass
class State:
  """Everything that a step changes; a pytree, and all that a checkpoint needs."""

  step: Array  # int32 scalar: number of updates done
  params: PyTree
  mutable: PyTree  # Linen collections that training changes, such as batch statistics
  opt_state: PyTree
  ema: PyTree  # averaged parameters; empty where unused
  frozen: PyTree  # collections without an optimizer: a teacher, a backbone; empty where unused


class Task(NamedTuple):
  """How to begin, how to take a step and how to measure; all three are pure and jittable."""

  init: Callable[[Array, Batch], State]  # (key, batch) -> state
  train_step: Callable[[State, Batch, Array], tuple[State, Metrics]]  # (state, batch, key)
  eval_step: Callable[[State, Batch, Array], Metrics]  # (state, batch, key)


def evaluation_variables(state: State) -> dict[str, PyTree]:
  """Linen variables to evaluate, sample and export with: averaged parameters where there are any."""
  return {'params': state.ema or state.params, **state.mutable, **state.frozen}


def mean_gradient(
  loss: Callable[[PyTree], tuple[Mean, Metrics, PyTree]], params: PyTree, axis_name: str = ''
) -> tuple[PyTree, tuple[Mean, Metrics, PyTree]]:
  """Gradient of a mean loss and what `loss(params)` returns: the gradient of the total over the count.

  Totals, counts and gradients are summed over the devices of `axis_name` first, before anything is made of them.
  """

  def total(params: PyTree) -> tuple[Array, tuple[Mean, Metrics, PyTree]]:
    value, metrics, mutable = loss(params)
    return value.total, (value, metrics, mutable)

  gradients, (value, metrics, mutable) = jax.grad(total, has_aux=True)(params)
  gradients, value, metrics = reduce((gradients, value, metrics), axis_name)
  return jax.tree.map(lambda leaf: leaf / value.count, gradients), (value, metrics, mutable)


def reduce(tree: PyTree, axis_name: str) -> PyTree:
  """Sums over the devices of a mapped axis; without a name the tree as it is, of which the compiler sees all."""
  return jax.lax.psum(tree, axis_name) if axis_name else tree
