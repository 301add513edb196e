"""What a config builds: all the parts of an experiment, wired."""

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
from research.types import Batch, PyTree

# (state, key) -> pairs of a name and a number, a text, a figure, or the exception that was raised in place of these
EvalFn = Callable[[State, Array], Iterator[tuple[str, Any]]]


class Request(NamedTuple):
  """What a sampler is asked for; it says itself what it can do without."""

  prompt: str = ''  # text that is continued, or translated
  input: str = ''  # path of a file: what is heard, or what is forecast from
  length: int | None = None  # tokens of a text
  temperature: float | None = None  # of the distribution that is drawn from; 0 takes the likeliest

  def refuse(self, *names: str, instead: str) -> None:
    """Raises ConfigError where one of the flags `names` is given, of which a sampler makes nothing."""
    for name in names:
      if (value := getattr(self, name)) not in ('', None):
        raise ConfigError(f'--{name}={value!r}: is not used by this model; it takes --{instead}')


# (variables, key, request) -> pairs of a name and a text or a figure
Sampler = Callable[[PyTree, Array, Request], Iterator[tuple[str, Any]]]


@dataclass(frozen=True)
class Experiment:
  """A task, the examples that it learns from and what is measured of it."""

  task: Task
  train: Source
  evaluators: Mapping[str, EvalFn] = field(default_factory=dict)  # every `eval_every` steps
  final_evaluators: Mapping[str, EvalFn] = field(default_factory=dict)  # once, after the last step: the test set
  score: Callable[[Mapping[str, float]], float] | None = None  # of an evaluation; the highest is the best checkpoint
  predict: Callable[[State, Batch], PyTree] | None = None  # outputs of the model as it is evaluated
  files: Mapping[str, str] = field(default_factory=dict)  # texts kept in the workdir, by name: a tokenizer
  config: Any = None  # the config that built it, as it was then; `Config.build` of any class fills it in


def checked(experiment: Experiment) -> Experiment:
  """`experiment`, once all its examples are found to be right; streamed ones are checked as they are read.

  Raises ConfigError for a model, and DataError for examples, that nothing can be learned from.
  """
  traced = {}

  def expects(batch: Batch) -> Mapping[str, Expected]:
    """Parts whose examples are alike are traced once."""
    kind = tuple((name, array.shape, array.dtype) for name, array in batch.items())
    if kind not in traced:
      traced[kind] = batch, experiment.task.expects(batch)
      _check_parameters(experiment.task, next(iter(traced.values()))[0], batch)
    return traced[kind][1]

  def check(part: str, owner: Any) -> Any:
    """`owner`, a source or an evaluator, with checked examples."""
    examples = checks.checked(part, owner.examples, expects)
    return owner if examples is owner.examples else dataclasses.replace(owner, examples=examples)

  def check_all(evaluators: Mapping[str, EvalFn]) -> dict[str, EvalFn]:
    return {part: check(part, it) if hasattr(it, 'examples') else it for part, it in evaluators.items()}

  return dataclasses.replace(
    experiment,
    train=check('training', experiment.train),
    evaluators=check_all(experiment.evaluators),
    final_evaluators=check_all(experiment.final_evaluators),
  )


def _check_parameters(task: Task, training: Batch, other: Batch) -> None:
  """Raises DataError where the model has other parameters for `other` examples than for those it is trained on."""
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
