"""One step of gradient descent on one objective: most of deep learning."""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from jax import Array

from research import random
from research.errors import ConfigError, check_counts, check_range
from research.metrics import Mean, Metrics
from research.tasks.accumulate import accumulated
from research.tasks.base import (
  State,
  Task,
  Totals,
  evaluation_variables,
  mean_gradient,
  reduce,
  total_gradient,
  unless_empty,
  variables,
  without_masked_inputs,
)
from research.tasks.expects import expected_by
from research.tasks.precision import computing_in, first_loss_scale, scaled, unless_overflow, unscaled
from research.types import Batch, Objective, PyTree

# Collections that `State.ema` averages. Batch statistics too: those of the raw network do not fit the averaged one. A
# tenth of the way into a schedule the validation loss of lstm_fcn_forda is .387 with them, .357 with averaged ones and
# .354 with ones recomputed over 200 batches; of cnn_digits .361, .356, .356; of cnn_mnist .594, .593, .591. At the end
# of a schedule, where the parameters hardly move, all three agree.
AVERAGED = ('params', 'batch_stats')


def supervised(
  model: nn.Module,
  objective: Objective,
  optimizer: optax.GradientTransformation,
  preprocess: Callable[[Batch], Batch] = lambda batch: batch,
  augment: Callable[[Batch, Array], Batch] = lambda batch, key: batch,
  ema_decay: float = 0.0,
  precision: str = 'float32',
  accumulate: int = 1,
  axis_name: str = '',
) -> Task:
  """Task of fitting `model` to `objective`.

  Args:
    model: called on `batch['inputs']`.
    objective: what is minimised, as a total and a count, so that masks never bias the gradient.
    optimizer: turns gradients into updates.
    preprocess: makes the model's inputs of raw ones, in training and in evaluation.
    augment: changes raw inputs, in training alone, each example by a key of its own.
    ema_decay: decay of the averaged parameters and batch statistics used in evaluation; 0 evaluates the raw ones.
    precision: what the model computes in, one of `research.tasks.precision.PRECISIONS`.
    accumulate: micro-batches that a step's batch is taken in; see `accumulated` for what batch norm does then.
    axis_name: mapped axis of devices that each see a part of the batch (pmap); '' where all is seen.

  Raises ConfigError for an objective that couples the examples of a batch, or carries state from batch to batch, where
  `axis_name` or `accumulate` parts the batch, and for numbers out of their ranges.
  """
  check_range('ema_decay', ema_decay, below=1)
  check_counts(accumulate=accumulate)
  check_whole(objective, accumulate, axis_name)
  network = computing_in(precision, model)

  def init(key: Array, batch: Batch) -> State:
    collections = model.init(random.stream(key, 'params'), preprocess(batch)['inputs'], train=False)
    average = {
      name: jax.tree.map(jnp.copy, collections[name]) for name in AVERAGED if ema_decay and name in collections
    }
    params = collections.pop('params')
    mutable = {**collections, **first_loss_scale(precision)}
    return State(jnp.zeros((), jnp.int32), params, mutable, optimizer.init(nn.unbox(params)), average, {})

  def gradient(state: State, batch: Batch, key: Array, number: int | Array) -> tuple[Totals, PyTree]:
    batch = preprocess(augment(without_masked_inputs(batch), random.stream(key, 'augment')))

    def loss(params: PyTree) -> tuple[Mean, Metrics, PyTree]:
      noise = random.per_device(random.stream(key, 'dropout', number), axis_name)
      value, aux = objective(network, variables(state, params), batch, noise, train=True)
      return scaled(value, state), aux.metrics, aux.mutable

    return total_gradient(loss, state.params)

  def train_step(state: State, batch: Batch, key: Array) -> tuple[State, Metrics]:
    totals, changed = accumulated(gradient, accumulate)(state, batch, key)
    totals = unscaled(reduce(totals, axis_name), state)
    gradients = mean_gradient(totals)
    updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    mutable = {**state.mutable, **changed}
    average = _averaged(state.ema, {'params': params, **mutable}, state.step, ema_decay)
    new = State(state.step + 1, params, mutable, opt_state, average, state.frozen)
    new = unless_empty(unless_overflow(new, state, gradients), state, totals.loss)
    return new, {'loss': totals.loss, **totals.metrics}

  def eval_step(state: State, batch: Batch, key: Array) -> Metrics:
    value, aux = objective(network, evaluation_variables(state), preprocess(batch), key, train=False)
    return {'loss': value, **aux.metrics}

  return Task(init, train_step, eval_step, partial(expected_by, model, objective, preprocess))


def predictor(
  model: nn.Module, preprocess: Callable[[Batch], Batch] = lambda batch: batch, precision: str = 'float32'
) -> Callable[[State, Batch], Array]:
  """Function (state, batch) -> outputs of the model [batch, ...], with the parameters that are evaluated."""
  network = computing_in(precision, model)

  def predict(state: State, batch: Batch) -> Array:
    return network.apply(evaluation_variables(state), preprocess(batch)['inputs'], train=False)

  return predict


def check_whole(objective: Objective, accumulate: int, axis_name: str) -> None:
  """Raises ConfigError for an objective whose batches may not be parted, where they would be."""
  carries = getattr(objective, 'carries_state', False)
  if axis_name and getattr(objective, 'couples_examples', False):
    raise ConfigError(f'config.mesh.backend=pmap: {objective.__name__} couples the examples of a batch; use jit')
  if axis_name and carries:
    raise ConfigError('config.mesh.backend=pmap: the model carries state across batches; use jit')
  if accumulate > 1 and carries:
    raise ConfigError(f'config.accumulate={accumulate}: the model carries state across batches; use 1')


def _averaged(average: PyTree, collections: PyTree, step: Array, decay: float) -> PyTree:
  """Exponential moving average of the collections it has; a short memory at first, so that the start is forgotten."""
  decay = jnp.minimum(decay, (1.0 + step) / (10.0 + step))
  new = {name: collections[name] for name in average}
  return jax.tree.map(lambda old, new: decay * old + (1 - decay) * new, average, new)
