"""What a config builds: the parts of an experiment."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
from flax.errors import ScopeParamShapeError
from jax import Array

from research.data import checks
from research.data.source import Source
from research.errors import ConfigError, DataError
from research.expected import Expected
from research.tasks.base import State, Task
from research.train.description import Description, Shapes, shapes_of
from research.types import Batch, Fitted, PyTree

# (state, key) -> pairs of a name and a number, text, figure, or the exception raised instead
EvalFn = Callable[[State, Array], Iterator[tuple[str, Any]]]


class Request(NamedTuple):
  """A request to a sampler, which decides what it needs."""

  prompt: str = ''  # text to continue or translate
  input: str = ''  # path of a file: a recording, or the past of a series
  length: int | None = None  # in tokens
  temperature: float | None = None  # of sampling; 0 is greedy

  def refuse(self, *names: str, instead: str) -> None:
    """Raises ConfigError if one of the flags `names`, which the sampler does not use, is given."""
    for name in names:
      if (value := getattr(self, name)) not in ('', None):
        raise ConfigError(f'--{name}={value!r}: is not used by this model; it takes --{instead}')


# (variables, key, request) -> pairs of a name and a text or figure
Sampler = Callable[[PyTree, Array, Request], Iterator[tuple[str, Any]]]


@dataclass(frozen=True)
class Experiment:
  """A task, its training examples and its evaluators."""

  task: Task
  train: Source
  evaluators: Mapping[str, EvalFn] = field(default_factory=dict)  # every `eval_every` steps
  final_evaluators: Mapping[str, EvalFn] = field(default_factory=dict)  # once, after the last step: the test split
  schedules: Mapping[str, Callable[[Array], Array]] = field(default_factory=dict)  # logged, too: f(updates so far)
  score: Callable[[Mapping[str, float]], float] | None = None  # of an evaluation's metrics; higher is better
  predict: Callable[[State, Batch], PyTree] | None = None  # outputs of the model in evaluation
  network: Callable[[PyTree, Batch], PyTree] | None = None  # (variables, raw inputs) -> outputs, in evaluation mode
  inputs: Callable[[], Shapes] = dict  # the network's raw inputs, of one example
  fitted: Fitted = field(default_factory=dict)  # with the config, everything the network is built from
  config: Any = None  # a copy of the config that built it, set by `Config.build`


def describe(experiment: Experiment) -> Description:
  """What a run of the experiment writes before its first step."""
  return Description(experiment.inputs(), shapes_of(experiment.train.examples), experiment.fitted)


def checked(experiment: Experiment) -> Experiment:
  """`experiment` with checked examples; streamed ones are checked as they are read.

  Raises ConfigError or DataError if the model or the examples are invalid.
  """
  check = checker(experiment.task)

  train = check('training', experiment.train)
  evaluators, final = (
    {part: check(part, it) for part, it in evaluators.items()}
    for evaluators in (experiment.evaluators, experiment.final_evaluators)
  )
  return dataclasses.replace(experiment, train=train, evaluators=evaluators, final_evaluators=final)


def checker(task: Task, training: Batch | None = None) -> Callable[[str, Any], Any]:
  """Function (part, owner) -> `owner`, a source or an evaluator, with its examples checked, if it has any.

  `training` has the shapes of a batch of one training example; without it, those checked first are the training ones.
  """
  traced = {}

  def expects(batch: Batch) -> Mapping[str, Expected]:
    """Splits with equal shapes are traced once."""
    kind = tuple((name, array.shape, array.dtype) for name, array in batch.items())
    if kind not in traced:
      traced[kind] = batch, task.expects(batch)
      _check_parameters(task, training or next(iter(traced.values()))[0], batch)
    return traced[kind][1]

  def check(part: str, owner: Any) -> Any:
    if not hasattr(owner, 'examples'):
      return owner
    examples = checks.checked(part, owner.examples, expects)
    return owner if examples is owner.examples else dataclasses.replace(owner, examples=examples)

  return check


def _check_parameters(task: Task, training: Batch, other: Batch) -> None:
  """Raises DataError if the model would have different parameters for `other` examples than in training."""
  if other is training:
    return
  try:
    state = jax.eval_shape(lambda batch: task.init(jax.random.key(0), batch), training)
    jax.eval_shape(lambda state, batch: task.eval_step(state, batch, jax.random.key(0)), state, other)
  except ScopeParamShapeError as error:
    found, needed = (list(batch['inputs'].shape[1:]) for batch in (other, training))
    raise DataError(
      f'inputs: are {found} for an example, but {needed} in training, so the parameters do not fit'
    ) from error
