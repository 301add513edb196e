"""Gradient descent on one objective: most of deep learning."""

from collections.abc import Callable, Sequence
from functools import partial

import jax.numpy as jnp
import optax
from flax import linen as nn
from jax import Array

from research import random
from research.errors import ConfigError, check_range
from research.metrics import Mean, Metrics
from research.tasks.base import MEMORY, State, Task, evaluation_variables, variables, without_masked_inputs
from research.tasks.descend import PLAIN, Compute, descend, first_average
from research.tasks.expects import expected_by
from research.tasks.frozen import frozen_in_eval_mode, split_frozen
from research.tasks.precision import computing_in, first_loss_scale
from research.types import Batch, Objective, PyTree


def supervised(
  model: nn.Module,
  objective: Objective,
  optimizer: optax.GradientTransformation,
  preprocess: Callable[[Batch], Batch] = lambda batch: batch,
  augment: Callable[[Batch, Array], Batch] = lambda batch, key: batch,
  ema_decay: float = 0.0,
  frozen: Sequence[str] = (),
  compute: Compute = PLAIN,
) -> Task:
  """Task of training `model` on `objective`.

  Args:
    model: called on `batch['inputs']`.
    objective: the loss, as a total and a count, so that masks never bias the gradient.
    optimizer: any Optax gradient transformation.
    preprocess: turns raw inputs into the model's inputs, in training and evaluation.
    augment: changes raw inputs, in training only, with a separate key per example.
    ema_decay: decay of the averaged parameters and batch statistics used in evaluation; 0 evaluates the raw ones.
    frozen: globs of paths, such as 'encoder/*', of parameters and statistics to freeze. They are in `State.frozen`,
      without gradient, optimizer state or EMA. Entirely frozen modules run in evaluation mode.
    compute: precision, micro-batches and mapped axis of devices.

  Raises ConfigError for an objective that couples the examples of a batch where `compute.axis_name` splits it, for
  `ema_decay` out of range, and at init for a glob in `frozen` that matches no parameter.
  """
  check_range('ema_decay', ema_decay, below=1)
  if compute.axis_name and getattr(objective, 'couples_examples', False):
    raise ConfigError(f'config.mesh.backend=pmap: {objective.__name__} couples the examples of a batch; use jit')
  network = computing_in(compute.precision, model)

  def init(key: Array, batch: Batch) -> State:
    collections = model.init(random.stream(key, 'params'), preprocess(batch)['inputs'], train=False)
    memory = {name: collections.pop(name) for name in MEMORY if name in collections}
    collections, kept = split_frozen(collections, frozen)
    average, params = first_average(collections, ema_decay), collections.pop('params')
    mutable = {**collections, **first_loss_scale(compute.precision)}
    opt_state = optimizer.init(nn.unbox(params))
    return State(jnp.zeros((), jnp.int32), params, mutable, memory, opt_state, average, kept)

  def loss(params: PyTree, state: State, batch: Batch, key: Array, number: int | Array) -> tuple[Mean, Metrics, PyTree]:
    batch = preprocess(augment(without_masked_inputs(batch), random.stream(key, 'augment')))
    noise = random.per_device(random.stream(key, 'dropout', number), compute.axis_name)
    with frozen_in_eval_mode(frozen):
      value, aux = objective(network, variables(state, params), batch, noise, train=True)
    return value, aux.metrics, aux.mutable

  def train_step(state: State, batch: Batch, key: Array) -> tuple[State, Metrics]:
    state, totals = descend(state, batch, key, loss, optimizer, compute, ema_decay)
    return state.replace(step=state.step + 1), {'loss': totals.loss, **totals.metrics}

  def eval_step(state: State, batch: Batch, key: Array) -> Metrics:
    value, aux = objective(network, evaluation_variables(state), preprocess(batch), key, train=False)
    return {'loss': value, **aux.metrics}

  def restarted(state: State) -> State:
    return state.replace(opt_state=optimizer.init(nn.unbox(state.params)))

  return Task(init, train_step, eval_step, partial(expected_by, model, objective, preprocess), restarted)
