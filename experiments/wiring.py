"""Wires a supervised experiment: the same for every model and dataset."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

import optax
from flax import linen as nn
from jax import Array

from research.data.examples import Dataset
from research.data.source import Source
from research.evaluate.evaluator import Evaluator, Report, make_eval_step
from research.models.fields import with_field
from research.models.remat import with_remat
from research.tasks.base import State
from research.tasks.supervised import predictor, supervised
from research.train.config import Config
from research.train.experiment import Experiment
from research.train.optimizer import make_optimizer
from research.types import Batch, Objective, PyTree


def supervised_experiment(
  config: Config,
  data: Dataset,
  model: nn.Module,
  objective: Objective,
  score: Callable[[Mapping[str, float]], float],
  preprocess: Callable[[Batch], Batch] = lambda batch: batch,
  augment: Callable[[Batch, Array], Batch] = lambda batch, key: batch,
  metrics: Sequence[Report] = (),
  figures: Sequence[Report] = (),
  predict: Callable[[State, Batch], PyTree] | None = None,
  source: Source | None = None,
  files: Mapping[str, str] = MappingProxyType({}),
  optimizer: optax.GradientTransformation | None = None,
) -> Experiment:
  """Trains `model`, evaluates on validation during training, and on validation and test at the end.

  `score` of the validation metrics selects the best checkpoint. `metrics` are reported in every evaluation, `figures`
  are drawn of the test split only. `predict` replaces the model's plain outputs as their input; `source` replaces the
  shuffled order of the training examples.
  `optimizer` is any transformation of optax; it replaces the one that `config.optimizer` describes, but not `freeze`.
  """
  frozen, settings = config.optimizer.freeze, dataclasses.replace(config.optimizer, freeze=())
  optimizer = optimizer or make_optimizer(settings, config.steps)
  model = with_remat(with_field(model, 'axis_name', config.mesh.axis_name) or model, config.remat)
  task = supervised(model, objective, optimizer, preprocess, augment, config.ema_decay, frozen, config.compute)
  predict = predict or predictor(model, preprocess, config.precision)
  eval_step = make_eval_step(task, predict)
  validation = Evaluator(eval_step, data.validation, config.eval_batch_size, metrics)
  test = Evaluator(eval_step, data.test, config.eval_batch_size, (*metrics, *figures))
  return Experiment(
    task=task,
    train=source or Source(data.train, config.batch_size, config.seed),
    evaluators={'validation': validation},
    final_evaluators={'validation': validation, 'test': test},
    score=score,
    predict=predict,
    files=files,
  )
