"""Reports of a language model, from the loss of each target in nats [windows, length]."""

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from research.data.examples import counting
from research.evaluate.figures import ACCENT, FAINT, SMALL, THICK, THIN, make_figure, plain
from research.evaluate.reports import Report
from research.types import Rows

if TYPE_CHECKING:
  from matplotlib.figure import Figure

MOST_NATS = 700  # exp of more would overflow


def target_weights(rows: Rows) -> np.ndarray:
  """The weight of each target: float64, in the shape of the targets."""
  return counting(rows) * np.asarray(rows.get('weights', 1.0), np.float64)


def perplexity(losses: np.ndarray, rows: Rows) -> Iterator[tuple[str, float]]:
  """The perplexity, the exponential of the mean loss."""
  weights = target_weights(rows)
  if (counts := weights > 0).any():
    nats = np.average(losses[counts], weights=weights[counts])
    yield 'perplexity', math.exp(min(nats, MOST_NATS))


def bits_by_document(names: Sequence[str], characters: np.ndarray) -> Report:
  """Report of the bits per character of each document; `characters` [vocabulary] is the number per token."""

  def report(losses: np.ndarray, rows: Rows) -> Iterator[tuple[str, float]]:
    weights = target_weights(rows)
    for number, name in enumerate(names):
      own = (weights > 0) & (rows['document'] == number)[:, None]
      if length := characters[rows['targets'][own]] @ weights[own]:
        yield f'bits_per_character_{name}', float(losses[own] @ weights[own] / length / math.log(2))

  return report


def bits_by_context(context: int, bins: int = 40) -> Report:
  """Report that draws bits per token by the number of tokens before; the first `context` of a window do not count."""

  def report(losses: np.ndarray, rows: Rows) -> Iterator[tuple[str, 'Figure']]:
    weights = target_weights(rows)
    whole = weights[:, context:].all(1) & (weights[:, 0] == 0)
    if not whole.any():
      return
    bits = losses[whole].mean(0) / math.log(2)
    figure, (axis,) = make_figure()
    edges = np.unique(np.geomspace(1, len(bits), bins).astype(int) - 1)
    places = (edges[:-1] + edges[1:] + 1) / 2
    axis.plot(places, np.add.reduceat(bits, edges)[:-1] / np.diff(edges), color=ACCENT, linewidth=THICK, label='model')
    axis.axvline(context, color=FAINT, linewidth=THIN, linestyle=':', label='tokens after this are counted')
    axis.set(xlabel='tokens of context', ylabel='bits per token', xscale='log')
    axis.legend(frameon=False, fontsize=SMALL)
    plain(axis)
    yield 'bits_by_context', figure

  return report
