"""Pictures of series and of what a model makes of them."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from research.evaluate.evaluator import Report
from research.evaluate.figures import ACCENT, FAINT, INK, SMALL, THIN, make_figure, plain, surest_mistakes
from research.types import Rows

if TYPE_CHECKING:
  from matplotlib.figure import Figure


SERIES = (2.6, 1.7)  # inches, of the picture of one


def mistakes(classes: Sequence[str], most: int = 12) -> Report:
  """Report that draws the series whose wrong class the model was surest of, over the means of both classes."""

  def report(logits: np.ndarray, rows: Rows) -> Iterator[tuple[str, 'Figure']]:
    guesses, targets = logits.argmax(-1), rows['targets']
    wrong, confidence = surest_mistakes(logits, targets, most)
    figure, axes = make_figure(4, max(1, -(-len(wrong) // 4)), SERIES)
    means = class_means(rows, len(classes))
    for axis in axes[len(wrong) :]:
      axis.set_axis_off()
    for axis, number, sure in zip(axes, wrong, confidence, strict=False):
      guess, target = guesses[number], targets[number]
      axis.plot(means[guess], color=ACCENT, linewidth=THIN, alpha=0.8)
      axis.plot(means[target], color=FAINT, linewidth=THIN)
      axis.plot(_series(rows)[number], color=INK, linewidth=THIN)
      axis.set_title(f'{classes[guess]} ({sure:.0%}), is {classes[target]}', fontsize=SMALL)
      plain(axis)
    yield 'mistakes', figure

  return report


def class_means(rows: Rows, classes: int) -> np.ndarray:
  """Mean of the first feature of each class's series at each step: [classes, length], NaN where there is none."""
  series, targets = _series(rows), rows['targets']
  total = np.stack([np.nansum(series[targets == number], axis=0) for number in range(classes)])
  count = np.stack([(~np.isnan(series[targets == number])).sum(0) for number in range(classes)])
  return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def _series(rows: Rows) -> np.ndarray:
  """The first feature of each series [examples, length], NaN after its end."""
  series = rows['inputs'][..., 0]
  if 'lengths' not in rows:
    return series
  return np.where(np.arange(series.shape[1]) < rows['lengths'][:, None], series, np.nan)
