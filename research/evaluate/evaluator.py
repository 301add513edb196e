"""Evaluates a State on every example of a split exactly once."""

import collections
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
from research.evaluate.reports import Report, begin, joined, name_of
from research.metrics import Metrics
from research.parallel import placement
from research.tasks.base import State, Task
from research.types import Batch, PyTree, Rows

EvalStep = Callable[[State, Batch, Array], tuple[Metrics, PyTree]]
AHEAD = 2  # batches dispatched before the outputs of one are fetched


def make_eval_step(task: Task, predict: Callable[[State, Batch], PyTree]) -> EvalStep:
  """Compiled function (state, batch, key) -> metrics, outputs; shared by the evaluators of an experiment."""

  @jax.jit
  def eval_step(state: State, batch: Batch, key: Array) -> tuple[Metrics, PyTree]:
    return task.eval_step(state, batch, key), predict(state, batch)

  return eval_step


@dataclass(frozen=True)
class Evaluator:
  """Yields the means of a task's metrics over `examples`, then the results of `reports`.

  Inputs and outputs are dropped after each batch, except what a report keeps. An exception raised by a report is
  yielded under the report's name, so no other result is lost.

  Raises NotFiniteError if a mean is NaN or infinite, and DataError if every example is masked out.
  """

  eval_step: EvalStep
  examples: Examples
  batch_size: int
  reports: Sequence[Report] = ()

  def __call__(self, state: State, key: Array) -> Iterator[tuple[str, Any]]:
    running = [_Attempt(report, len(self.examples)) for report in self.reports]
    metrics = []
    for own, outputs, rows in self._batches(state, key, fetch=bool(running)):
      metrics.append(own)
      for attempt in running if len(rows['index']) else ():
        attempt.update(outputs, rows)
    total = _total(metrics)
    self._check(total, state)
    yield from means.compute(total).items()
    for attempt in running:
      yield from attempt.result()

  def collect(self, state: State, key: Array) -> tuple[Metrics, PyTree]:
    """Metrics over all examples, and the outputs [examples, ...] of those that are not masked, in order."""
    metrics, outputs, _ = zip(*self._batches(state, key, fetch=True), strict=True)
    return _total(metrics), joined(outputs)

  def _batches(self, state: State, key: Array, fetch: bool) -> Iterator[tuple[Metrics, PyTree, Rows]]:
    """Metrics of each batch, and its unmasked outputs and rows if `fetch`, while the devices compute the next."""
    sharding = placement.batch_sharding(_mesh_of(state))
    waiting = collections.deque()
    for index in self._indices(placement.num_shards(sharding.mesh)):
      rows = self.examples.rows(np.minimum(index, len(self.examples) - 1)) if fetch else {}
      batch = placement.put_rows(partial(self._padded, index, rows), index, sharding)
      metrics, outputs = self.eval_step(state, batch, key)  # noise is drawn by the index of an example
      waiting.append((metrics, outputs if fetch else (), {**rows, 'index': index}))
      if len(waiting) > AHEAD:
        yield self._fetched(*waiting.popleft())
    while waiting:
      yield self._fetched(*waiting.popleft())

  def _indices(self, parts: int) -> Iterator[np.ndarray]:
    """Example numbers of each batch, a multiple of `parts`; the last ones may lie past the end."""
    size = -(-self.batch_size // parts) * parts
    return (np.arange(start, start + size, dtype=np.int32) for start in range(0, len(self.examples), size))

  def _padded(self, index: np.ndarray, rows: Rows, own: np.ndarray) -> dict[str, np.ndarray]:
    """The examples `own` of the batch `index`, from its `rows` if they have been read."""
    if not rows:
      return padded_rows(self.examples, own)
    rows = with_mask(rows, index < len(self.examples))
    return rows if len(own) == len(index) else {name: array[own - index[0]] for name, array in rows.items()}

  def _fetched(self, metrics: Metrics, outputs: PyTree, rows: Rows) -> tuple[Metrics, PyTree, Rows]:
    """Everything as NumPy arrays, outputs and rows without padding and fully masked examples."""
    metrics, outputs = placement.fetch((metrics, outputs))
    kept = counting(rows, 'index') & (rows['index'] < len(self.examples))
    if kept.all():
      return metrics, outputs, rows
    return metrics, *jax.tree.map(lambda array: array[kept], (outputs, rows))

  def _check(self, metrics: Metrics, state: State) -> None:
    """Raises the errors of the class."""
    if bad := next((name for name, metric in metrics.items() if not np.isfinite(metric).all()), ''):
      numbers = np.arange(len(self.examples))
      parts = (numbers[start : start + self.batch_size] for start in numbers[:: self.batch_size])
      cause = next(filter(None, (not_finite(self.examples, index) for index in parts)), '')
      advice = f'{cause}; fix the data' if cause else 'lower the learning rate or clip the gradients'
      what = f'the {bad} of an evaluation after step {int(state.step)} is NaN or infinite'
      raise NotFiniteError(f'{what}: {advice}; earlier checkpoints are kept')
    if not any(metric.count for metric in metrics.values()):
      raise DataError('every example of an evaluation is masked out; drop this split')


class _Attempt:
  """A report in the middle of an evaluation, or the exception that it raised."""

  def __init__(self, report: Report, size: int):
    self._name, self._running, self._error = name_of(report), begin(report, size), None

  def update(self, outputs: PyTree, rows: Rows) -> None:
    if self._error is None:
      try:
        self._running.update(outputs, rows)
      except Exception as error:
        self._error = error

  def result(self) -> Iterator[tuple[str, Any]]:
    try:
      if self._error is not None:
        raise self._error
      for name, value in self._running.result():
        yield name, _plain(value)
    except Exception as error:
      yield self._name, error


def _total(metrics: Sequence[Metrics]) -> Metrics:
  """Sum over all batches."""
  return jax.tree.map(lambda *leaves: np.sum(leaves, dtype=np.float64), *metrics)


def padded_rows(examples: Examples, index: np.ndarray) -> dict[str, np.ndarray]:
  """The examples `index` [batch]; past the end the last one again, with a `mask` of 0, and else of their own."""
  return with_mask(examples.rows(np.minimum(index, len(examples) - 1)), index < len(examples))


def with_mask(rows: Rows, there: np.ndarray) -> dict[str, np.ndarray]:
  """Rows whose `mask` is 0 where an example is not `there` [batch], and else their own."""
  mask = np.asarray(rows.get('mask', there), np.float32)
  return {**rows, 'mask': mask * np.expand_dims(there, tuple(range(1, mask.ndim)))}


def _plain(value: Any) -> Any:
  """Numbers of any kind as floats, everything else unchanged."""
  is_number = isinstance(value, (Real, np.ndarray, Array)) and np.ndim(value) == 0
  return float(value) if is_number else value


def _mesh_of(state: State) -> Mesh:
  """The devices of the State, which share each batch."""
  sharding = jax.tree.leaves(state)[0].sharding
  return sharding.mesh if isinstance(sharding, NamedSharding) else Mesh(list(sharding.device_set), ('data',))
