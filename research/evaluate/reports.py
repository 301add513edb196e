"""Reports: exact metrics and figures of a split, from the outputs for its examples.

A report is a function `(outputs, rows)` of all unmasked examples that yields pairs of a name and a number, text or
figure. Its rows have every array of the examples except `inputs`, which might not fit in memory. A `Streamed` report
sees the inputs too, one batch at a time, and keeps what it needs.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import jax
import numpy as np

from research.types import PyTree, Rows

Findings = Iterator[tuple[str, Any]]
Function = Callable[[PyTree, Rows], Findings]


class Accumulator(Protocol):
  """A report in the middle of an evaluation."""

  def update(self, outputs: PyTree, rows: Rows) -> None:
    """Reads the unmasked examples of a batch; `rows` has their `index`."""
    ...

  def result(self) -> Findings:
    """Names and values, after the last batch."""
    ...


@dataclass(frozen=True)
class Streamed:
  """A report that reads batch by batch; `begin` takes the number of examples of the split."""

  name: str
  begin: Callable[[int], Accumulator]

  def __call__(self, outputs: PyTree, rows: Rows) -> Findings:
    """Reports on examples that are all in memory."""
    size = len(jax.tree.leaves(outputs)[0])
    running = self.begin(size)
    running.update(outputs, {'index': np.arange(size), **rows})
    return running.result()


Report = Function | Streamed


def begin(report: Report, size: int) -> Accumulator:
  """Starts a report on a split of `size` examples."""
  return report.begin(size) if isinstance(report, Streamed) else Collected(report)


def name_of(report: Report) -> str:
  """Name of a report, or of the function that returned it."""
  if isinstance(report, Streamed):
    return report.name
  names = getattr(report, '__qualname__', repr(report)).split('.<locals>.')
  return names[-2] if names[1:] and names[-1] == 'report' else names[-1]


def without_inputs(outputs: PyTree, rows: Rows) -> tuple[PyTree, Rows]:
  return outputs, {name: array for name, array in rows.items() if name != 'inputs'}


class Collected:
  """Calls a report with everything that `reads(outputs, rows)` returned for each batch."""

  def __init__(self, report: Function, reads: Callable[[PyTree, Rows], tuple[PyTree, Rows]] = without_inputs):
    self._report, self._reads = report, reads
    self._kept: list[tuple[PyTree, Rows]] = []

  def update(self, outputs: PyTree, rows: Rows) -> None:
    self._kept.append(self._reads(outputs, rows))

  def result(self) -> Findings:
    return self._report(*joined(self._kept))


def reading(reads: Callable[[PyTree, Rows], tuple[PyTree, Rows]]) -> Callable[[Function], Streamed]:
  """Decorator for a report that needs only what `reads(outputs, rows)` returns; the rest of each batch is dropped."""
  return lambda report: Streamed(report.__name__, lambda size: Collected(report, reads))


class Summed:
  """Sums `terms(outputs, rows)`, a pytree of arrays, over batches, and reports `finish(sums)`."""

  def __init__(self, terms: Callable[[PyTree, Rows], PyTree], finish: Callable[[PyTree], Findings]):
    self._terms, self._finish = terms, finish
    self.sums: PyTree = None

  def update(self, outputs: PyTree, rows: Rows) -> None:
    terms = self._terms(outputs, rows)
    self.sums = terms if self.sums is None else jax.tree.map(np.add, self.sums, terms)

  def result(self) -> Findings:
    return self._finish(self.sums)


class Highest:
  """Keeps the examples with the highest `score(outputs, rows)` [batch], the highest first, and reports on them.

  At most `max_count`; among equal scores the first, and never one of -inf.
  """

  def __init__(self, report: Function, score: Callable[[PyTree, Rows], np.ndarray], max_count: int):
    self._report, self._score, self._max_count = report, score, max_count
    self._kept: tuple[np.ndarray, PyTree, Rows] | None = None

  def update(self, outputs: PyTree, rows: Rows) -> None:
    batch = self._best(np.asarray(self._score(outputs, rows)), outputs, rows)
    self._kept = batch if self._kept is None else self._best(*joined([self._kept, batch]))

  def _best(self, scores: np.ndarray, outputs: PyTree, rows: Rows) -> tuple[np.ndarray, PyTree, Rows]:
    order = np.argsort(-scores, kind='stable')
    chosen = order[scores[order] > -np.inf][: self._max_count]
    return jax.tree.map(lambda array: np.asarray(array)[chosen], (scores, outputs, rows))

  def result(self) -> Findings:
    return self._report(*self._kept[1:])


def joined(parts: list[PyTree]) -> PyTree:
  """Concatenates the arrays of several batches."""
  return jax.tree.map(lambda *arrays: np.concatenate(arrays), *parts)
