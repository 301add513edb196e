"""Wires a supervised experiment: the same for every model and dataset."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import optax
from flax import linen as nn
from jax import Array

from research.data.examples import Dataset
from research.data.source import Source
from research.evaluate.evaluator import Evaluator, make_eval_step
from research.evaluate.reports import Report
from research.models.fields import with_field
from research.models.remat import with_remat
from research.tasks.base import State
from research.tasks.network import predictor
from research.tasks.supervised import supervised
from research.train.config import Config, as_field
from research.train.description import as_json, shapes_of
from research.train.experiment import Experiment
from research.train.optimizer import make_optimizer, make_schedule
from research.types import Batch, Fitted, Objective, PyTree


def check_network(config: Config, fitted: Fitted, **fields: str) -> None:
  """Raises ConfigError for the first config field that the network cannot be built with, before any data are read.

  `fitted` stands in for what is fitted on the data. `fields` maps a model's argument to the config's field where the
  names differ.
  """
  with as_field(**fields):
    network = config.network(fitted)
  _as_configured(network.model, config)


def supervised_experiment(
  config: Config,
  data: Dataset,
  fitted: Fitted,
  objective: Objective,
  score: Callable[[Mapping[str, float]], float],
  augment: Callable[[Batch, Array], Batch] = lambda batch, key: batch,
  metrics: Sequence[Report] = (),
  figures: Sequence[Report] = (),
  predict: Callable[[State, Batch], PyTree] | None = None,
  source: Source | None = None,
  optimizer: optax.GradientTransformation | None = None,
) -> Experiment:
  """Trains `config.network(fitted)`, evaluates on validation during training, and on validation and test at the end.

  `fitted` is what was fitted on the training split: everything the network knows about the data. `score` of the
  validation metrics selects the best checkpoint. `metrics` are reported in every evaluation, `figures` are drawn of the
  test split only. `predict` replaces the network's outputs as their input; `source` replaces the shuffled order of the
  training examples. `optimizer` is any Optax transformation; it replaces the one that `config.optimizer` describes, but
  not `freeze`.
  """
  fitted = as_json(fitted)  # as it will be read from the workdir
  network = config.network(fitted)
  model = _as_configured(network.model, config)
  evaluated = dataclasses.replace(network, model=model).computing_in(config.precision)
  frozen, settings = config.optimizer.freeze, dataclasses.replace(config.optimizer, freeze=())
  schedules = {} if optimizer else {'learning_rate': make_schedule(settings, config.steps)}
  optimizer = optimizer or make_optimizer(settings, config.steps)
  task = supervised(model, objective, optimizer, network.preprocess, augment, config.ema_decay, frozen, config.compute)
  predict = predict or predictor(evaluated)
  eval_step = make_eval_step(task, predict)
  validation = Evaluator(eval_step, data.validation, config.eval_batch_size, metrics)
  test = Evaluator(eval_step, data.test, config.eval_batch_size, (*metrics, *figures))
  return Experiment(
    task=task,
    train=source or Source(data.train, config.batch_size, config.seed),
    evaluators={'validation': validation},
    final_evaluators={'validation': validation, 'test': test},
    score=score,
    schedules=schedules,
    predict=predict,
    network=evaluated,
    inputs=lambda: {name: leaf for name, leaf in shapes_of(data.train).items() if name in network.reads},
    fitted=fitted,
  )


def _as_configured(model: nn.Module, config: Config) -> nn.Module:
  """`model` with the fields that the config sets for any model."""
  return with_remat(with_field(model, 'axis_name', config.mesh.axis_name) or model, config.remat)
