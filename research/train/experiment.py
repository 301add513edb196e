"""What a config builds: all the parts of an experiment, wired."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from jax import Array

from research.data.source import Source
from research.tasks.base import Batch, PyTree, State, Task

# (state, key) -> pairs of a name and a number, a text or a figure
Evaluator = Callable[[State, Array], Iterator[tuple[str, Any]]]


@dataclass(frozen=True)
class Experiment:
  """A task, the examples that it learns from and what is measured of it."""

  task: Task
  train: Source
  evaluators: Mapping[str, Evaluator] = field(default_factory=dict)  # every `evaluate_every` steps
  final_evaluators: Mapping[str, Evaluator] = field(default_factory=dict)  # once, after the last step: the test set
  score: Callable[[Mapping[str, float]], float] | None = None  # of an evaluation; the highest is the best checkpoint
  predict: Callable[[State, Batch], PyTree] | None = None  # outputs of the model as it is evaluated
