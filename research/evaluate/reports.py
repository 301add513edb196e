"""What is measured and drawn of a part of the data, from the outputs for its examples.

A report is a function `(outputs, rows)` of all the examples that count, which yields pairs of a name and a number, a
text or a figure. It is given everything but the `inputs`, which may not fit into memory. A `Streamed` report is given
everything, batch by batch, and keeps what it needs.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import jax
import numpy as np

from research.types import PyTree, Rows

Findings = Iterator[tuple[str, Any]]
Function = Callable[[PyTree, Rows], Findings]


class Running(Protocol):
  """A report under way."""

  def update(self, outputs: PyTree, rows: Rows) -> None:
    """Reads the examples of a batch that count, each with its `index`."""
    ...

  def result(self) -> Findings:
    """What is found, after the last batch."""
    ...


@dataclass(frozen=True)
class Streamed:
  """A report that reads batch by batch; `begin` is given the number of examples of the part."""

  name: str
  begin: Callable[[int], Running]

  def __call__(self, outputs: PyTree, rows: Rows) -> Findings:
    """The report of examples that are all in memory."""
    size = len(jax.tree.leaves(outputs)[0])
    running = self.begin(size)
    running.update(outputs, {'index': np.arange(size), **rows})
    return running.result()


Report = Function | Streamed


def begin(report: Report, size: int) -> Running:
  """The report under way, on a part of `size` examples."""
  return report.begin(size) if isinstance(report, Streamed) else Collected(report)


def name_of(report: Report) -> str:
  """Name of a report, or of the function that made it."""
  if isinstance(report, Streamed):
    return report.name
  names = getattr(report, '__qualname__', repr(report)).split('.<locals>.')
  return names[-2] if names[1:] and names[-1] == 'report' else names[-1]


def without_inputs(outputs: PyTree, rows: Rows) -> tuple[PyTree, Rows]:
  return outputs, {name: array for name, array in rows.items() if name != 'inputs'}


class Collected:
  """A function's report: keeps of each batch what `reads(outputs, rows)` returns, and is made of all of it."""

  def __init__(self, report: Function, reads: Callable[[PyTree, Rows], tuple[PyTree, Rows]] = without_inputs):
    self._report, self._reads = report, reads
    self._kept: list[tuple[PyTree, Rows]] = []

  def update(self, outputs: PyTree, rows: Rows) -> None:
    self._kept.append(self._reads(outputs, rows))

  def result(self) -> Findings:
    return self._report(*joined(self._kept))


def reading(reads: Callable[[PyTree, Rows], tuple[PyTree, Rows]]) -> Callable[[Function], Streamed]:
  """Decorator of a report that reads only what `reads(outputs, rows)` returns; nothing else is kept of a batch."""
  return lambda report: Streamed(report.__name__, lambda size: Collected(report, reads))


class Summed:
  """Adds up `terms(outputs, rows)`, a tree of arrays for each batch, and reports `finish(sums)`."""

  def __init__(self, terms: Callable[[PyTree, Rows], PyTree], finish: Callable[[PyTree], Findings]):
    self._terms, self._finish = terms, finish
    self.sums: PyTree = None

  def update(self, outputs: PyTree, rows: Rows) -> None:
    terms = self._terms(outputs, rows)
    self.sums = terms if self.sums is None else jax.tree.map(np.add, self.sums, terms)

  def result(self) -> Findings:
    return self._finish(self.sums)


class Highest:
  """Keeps the examples of the highest `score(outputs, rows)` [batch], the highest first, and reports on these.

  At most `max_count`; of equal scores the first ones, and none of -inf.
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
  """One tree of arrays [examples, ...] of those of several batches."""
  return jax.tree.map(lambda *arrays: np.concatenate(arrays), *parts)
