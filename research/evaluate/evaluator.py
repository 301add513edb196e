"""Evaluates a State on every example of a split exactly once."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from numbers import Real
from typing import Any

import jax
import numpy as np
from jax import Array
from jax.sharding import Mesh, NamedSharding

from research import metrics as means
from research.data.examples import Examples, counting, not_finite
from research.errors import DataError, NotFiniteError
from research.metrics import Metrics
from research.parallel import placement
from research.tasks.base import State, Task
from research.types import Batch, PyTree, Rows

# (outputs, rows) of all unmasked examples -> pairs of a name and a number, text or figure
Report = Callable[[PyTree, Rows], Iterator[tuple[str, Any]]]
EvalStep = Callable[[State, Batch, Array], tuple[Metrics, PyTree]]


def make_eval_step(task: Task, predict: Callable[[State, Batch], PyTree]) -> EvalStep:
  """Compiled function (state, batch, key) -> metrics, outputs; shared by the evaluators of an experiment."""

  @jax.jit
  def eval_step(state: State, batch: Batch, key: Array) -> tuple[Metrics, PyTree]:
    return task.eval_step(state, batch, key), predict(state, batch)

  return eval_step


@dataclass(frozen=True)
class Evaluator:
  """Yields the means of a task's metrics over `examples`, then the results of `reports` on all outputs.

  An exception raised by a report is yielded under the report's name, so no other result is lost.

  Raises NotFiniteError if a mean is NaN or infinite, and DataError if every example is masked out.
  """

  eval_step: EvalStep
  examples: Examples
  batch_size: int
  reports: Sequence[Report] = ()

  def __call__(self, state: State, key: Array) -> Iterator[tuple[str, Any]]:
    metrics, outputs = self.collect(state, key)
    if bad := next((name for name, metric in metrics.items() if not np.isfinite(metric).all()), ''):
      cause = not_finite(self.examples, np.arange(len(self.examples)))
      advice = f'{cause}; fix the data' if cause else 'lower the learning rate or clip the gradients'
      what = f'the {bad} of an evaluation after step {int(state.step)} is NaN or infinite'
      raise NotFiniteError(f'{what}: {advice}; earlier checkpoints are kept')
    if not any(metric.count for metric in metrics.values()):
      raise DataError('every example of an evaluation is masked out; drop this split')
    yield from means.compute(metrics).items()
    if self.reports:
      outputs, rows = self._counted(outputs)
    for report in self.reports:
      try:
        for name, value in report(outputs, rows):
          yield name, _plain(value)
      except Exception as error:
        yield _name(report), error

  def collect(self, state: State, key: Array) -> tuple[Metrics, PyTree]:
    """Metrics over all examples, and the outputs [examples, ...] in order."""
    mesh = _mesh_of(state)
    parts = placement.num_shards(mesh)
    size = -(-self.batch_size // parts) * parts
    steps, in_flight = [], placement.InFlight()
    for start in range(0, len(self.examples), size):
      index = np.arange(start, start + size, dtype=np.int32)
      batch = placement.put_rows(partial(padded_rows, self.examples), index, placement.batch_sharding(mesh))
      steps.append(self.eval_step(state, batch, key))  # noise is drawn per example index
      in_flight.add(steps[-1])
    metrics, outputs = zip(*placement.fetch(steps), strict=True)
    total = jax.tree.map(lambda *leaves: np.sum(leaves, dtype=np.float64), *metrics)
    return total, jax.tree.map(lambda *parts: np.concatenate(parts)[: len(self.examples)], *outputs)

  def _counted(self, outputs: PyTree) -> tuple[PyTree, dict[str, np.ndarray]]:
    """Outputs and rows, with their `index`, of the examples that are not fully masked."""
    index = np.arange(len(self.examples))
    rows = {**self.examples.rows(index), 'index': index}
    if 'mask' not in rows:
      return outputs, rows
    kept = counting(rows, 'index')
    return jax.tree.map(lambda array: array[kept], (outputs, rows))


def padded_rows(examples: Examples, index: np.ndarray) -> dict[str, np.ndarray]:
  """The examples `index` [batch], padded past the end with the last one and a `mask` of 0."""
  rows, there = examples.rows(np.minimum(index, len(examples) - 1)), index < len(examples)
  mask = np.asarray(rows.get('mask', there), np.float32)
  return {**rows, 'mask': mask * np.expand_dims(there, tuple(range(1, mask.ndim)))}


def _plain(value: Any) -> Any:
  """Numbers of any kind as floats, everything else unchanged."""
  is_number = isinstance(value, (Real, np.ndarray, Array)) and np.ndim(value) == 0
  return float(value) if is_number else value


def _name(report: Report) -> str:
  """Name of a report, or of the function that made it."""
  names = getattr(report, '__qualname__', repr(report)).split('.<locals>.')
  return names[-2] if names[1:] and names[-1] == 'report' else names[-1]


def _mesh_of(state: State) -> Mesh:
  """The devices of the State, which share each batch."""
  sharding = jax.tree.leaves(state)[0].sharding
  return sharding.mesh if isinstance(sharding, NamedSharding) else Mesh(list(sharding.device_set), ('data',))
