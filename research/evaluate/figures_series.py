"""Figures of time series and predictions."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from research.evaluate.evaluator import Report
from research.evaluate.figures import ACCENT, FAINT, INK, SMALL, THIN, make_figure, most_confident_mistakes, plain
from research.types import Rows

if TYPE_CHECKING:
  from matplotlib.figure import Figure


SERIES = (2.6, 1.7)  # inches, per series


def mistakes(class_names: Sequence[str], max_count: int = 12) -> Report:
  """Report that draws the most confident mistakes over the means of both classes."""

  def report(logits: np.ndarray, rows: Rows) -> Iterator[tuple[str, 'Figure']]:
    predictions, targets = logits.argmax(-1), rows['targets']
    wrong, confidence = most_confident_mistakes(logits, targets, max_count)
    figure, axes = make_figure(4, max(1, -(-len(wrong) // 4)), SERIES)
    means = class_means(rows, len(class_names))
    for axis in axes[len(wrong) :]:
      axis.set_axis_off()
    for axis, number, sure in zip(axes, wrong, confidence, strict=False):
      guess, target = predictions[number], targets[number]
      axis.plot(means[guess], color=ACCENT, linewidth=THIN, alpha=0.8)
      axis.plot(means[target], color=FAINT, linewidth=THIN)
      axis.plot(_series(rows)[number], color=INK, linewidth=THIN)
      axis.set_title(f'{class_names[guess]} ({sure:.0%}), is {class_names[target]}', fontsize=SMALL)
      plain(axis)
    yield 'mistakes', figure

  return report


def class_means(rows: Rows, num_classes: int) -> np.ndarray:
  """Mean of the first feature per class and step: [classes, length], NaN if there is none."""
  series, targets = _series(rows), rows['targets']
  total = np.stack([np.nansum(series[targets == number], axis=0) for number in range(num_classes)])
  count = np.stack([(~np.isnan(series[targets == number])).sum(0) for number in range(num_classes)])
  return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def _series(rows: Rows) -> np.ndarray:
  """The first feature of each series [examples, length], NaN after its end."""
  series = rows['inputs'][..., 0]
  if 'lengths' not in rows:
    return series
  return np.where(np.arange(series.shape[1]) < rows['lengths'][:, None], series, np.nan)
