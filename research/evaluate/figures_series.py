"""Figures of time series and predictions."""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from research.evaluate.exact import log_odds, sigmoid
from research.evaluate.figures import ACCENT, FAINT, INK, SMALL, THIN, confidence_of_mistakes, make_grid, plain
from research.evaluate.reports import Highest, Report, Streamed, Summed
from research.types import Rows

if TYPE_CHECKING:
  from matplotlib.figure import Figure


SERIES = (2.6, 1.7)  # inches, per series


def mistakes(class_names: Sequence[str], max_count: int = 12) -> Report:
  """Report that draws the most confident mistakes over the means of both classes."""
  return Streamed('mistakes', lambda size: _Mistakes(class_names, max_count))


class _Mistakes:
  """Keeps the series to draw, and sums over those of each class."""

  def __init__(self, class_names: Sequence[str], max_count: int):
    self._sums = Summed(lambda logits, rows: class_sums(rows, len(class_names)), class_means)
    self._surest = Highest(partial(self._draw, class_names), confidence_of_mistakes, max_count)

  def update(self, logits: np.ndarray, rows: Rows) -> None:
    self._sums.update(logits, rows)
    self._surest.update(logits, rows)

  def result(self) -> Iterator[tuple[str, 'Figure']]:
    return self._surest.result()

  def _draw(self, class_names: Sequence[str], logits: np.ndarray, rows: Rows) -> Iterator[tuple[str, 'Figure']]:
    if not len(logits):
      return
    figure, axes = make_grid(len(logits), 4, SERIES)
    means, sure = self._sums.result(), sigmoid(log_odds(logits).max(-1))
    labels = zip(logits.argmax(-1), sure, rows['targets'], strict=True)
    for axis, series, (guess, sure, target) in zip(axes, _series(rows), labels, strict=True):
      axis.plot(means[guess], color=ACCENT, linewidth=THIN, alpha=0.8, label='mean of the predicted class')
      axis.plot(means[target], color=FAINT, linewidth=THIN, label='mean of the true class')
      axis.plot(series, color=INK, linewidth=THIN, label='the series')
      axis.set_title(f'{class_names[guess]} ({sure:.0%}), is {class_names[target]}', fontsize=SMALL)
      axis.set_xlabel('step', fontsize=SMALL)
      axis.set_ylabel('value' if axis.get_subplotspec().is_first_col() else '', fontsize=SMALL)
      plain(axis)
    columns, lines = 3 if len(axes) > 1 else 1, axes[0].get_legend_handles_labels()
    figure.legend(*lines, loc='outside lower center', ncols=columns, frameon=False, fontsize=SMALL)
    yield 'mistakes', figure


def class_sums(rows: Rows, num_classes: int) -> tuple[np.ndarray, np.ndarray]:
  """Sum of the first feature per class and step, and the number of values: both [classes, length]."""
  series, own = _series(rows), [rows['targets'] == number for number in range(num_classes)]
  total = np.stack([np.nansum(series[of_class], axis=0, dtype=np.float64) for of_class in own])
  return total, np.stack([(~np.isnan(series[of_class])).sum(0) for of_class in own])


def class_means(sums: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
  """Mean of the first feature per class and step: [classes, length], NaN if there is none."""
  total, count = sums
  return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def _series(rows: Rows) -> np.ndarray:
  """The first feature of each series [examples, length], NaN after its end."""
  series = rows['inputs'][..., 0]
  if 'lengths' not in rows:
    return series
  return np.where(np.arange(series.shape[1]) < rows['lengths'][:, None], series, np.nan)
