"""Figures of a model's predictions, drawn without a display."""

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from jax import Array

from research.data.examples import counting
from research.evaluate.exact import confusion_matrix, log_odds, sigmoid
from research.evaluate.reports import Highest, Report, Streamed
from research.types import Rows

if TYPE_CHECKING:
  from matplotlib.figure import Figure

COUNTED = 30  # classes of a confusion matrix up to which counts are legible
NAMED = 75  # classes of a larger one that are named
INK, ACCENT, FAINT = '#20262e', '#c8501e', '#8a94a0'
SMALL = 8  # points, of text within a figure
THIN, THICK = 1.0, 1.6  # points, of lines
PANEL, SQUARE, IMAGE = (4.6, 3.2), (4.0, 4.0), (1.5, 1.9)  # inches, of one set of axes
DPI = 110


def confusion(class_names: Sequence[str]) -> Report:
  """Report that draws the confusion matrix; shades are fractions of the true class.

  Up to 30 classes the numbers are counts; of more classes not every one is named.
  """

  def report(logits: np.ndarray, rows: Rows) -> Iterator[tuple[str, 'Figure']]:
    counted = counting(rows)
    counts = confusion_matrix(logits.reshape(*counted.shape, -1)[counted], rows['targets'][counted])
    few = len(class_names) <= COUNTED
    size = 2.2 + 0.45 * min(len(class_names), COUNTED)
    figure, (axis,) = make_figure(size=(size, size))
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    axis.imshow(shares**0.4, cmap='Blues', vmin=0, vmax=1.3)  # makes rare confusions visible
    for row, column in np.argwhere(counts) if few else ():
      color = 'white' if shares[row, column] > 0.3 else INK
      axis.text(column, row, counts[row, column], ha='center', va='center', fontsize=SMALL, color=color)
    named = range(0, len(class_names), -(-len(class_names) // NAMED))
    labels = [class_names[number] for number in named]
    axis.set_xticks(named, labels, rotation=45 if few else 90, ha='right' if few else 'center', fontsize=SMALL)
    axis.set_yticks(named, labels, fontsize=SMALL)
    axis.set(xlabel='predicted', ylabel='true')
    yield 'confusion_matrix', figure

  return report


def mistakes(
  class_names: Sequence[str], max_count: int = 18, picture: Callable[[Array], Array] = lambda inputs: inputs
) -> Report:
  """Report that draws the most confident mistakes, the most confident first.

  `picture` turns inputs that are not images into images [examples, height, width].
  """

  def draw(logits: np.ndarray, rows: Rows) -> Iterator[tuple[str, 'Figure']]:
    figure, axes = make_figure(6, max(1, -(-len(logits) // 6)), IMAGE)
    for axis in axes:
      axis.set_axis_off()
    images = np.asarray(picture(rows['inputs'])) if len(logits) else ()
    labels = zip(logits.argmax(-1), sigmoid(log_odds(logits).max(-1)), rows['targets'], strict=True)
    for axis, image, (guess, sure, target) in zip(axes, images, labels, strict=False):
      axis.imshow(image.squeeze(), cmap='gray_r')
      axis.set_title(f'{class_names[guess]} ({sure:.0%})\nis {class_names[target]}', fontsize=SMALL)
    yield 'mistakes', figure

  return Streamed('mistakes', lambda size: Highest(draw, confidence_of_mistakes, max_count))


def confidence_of_mistakes(logits: np.ndarray, rows: Rows) -> np.ndarray:
  """Log odds of each wrong prediction [examples]; -inf where the prediction is right."""
  return np.where(logits.argmax(-1) != rows['targets'], log_odds(logits).max(-1), -np.inf)


def predictions(unit: str = '') -> Report:
  """Report that draws predictions over targets; a perfect model lies on the diagonal."""

  def report(outputs: np.ndarray, rows: Rows) -> Iterator[tuple[str, 'Figure']]:
    counts = counting(rows).ravel()
    targets, outputs = rows['targets'].ravel()[counts], outputs.ravel()[counts]
    low, high = min(targets.min(), outputs.min()), max(targets.max(), outputs.max())
    figure, (axis,) = make_figure(size=SQUARE)
    axis.plot([low, high], [low, high], color=FAINT, linewidth=THIN)
    axis.scatter(targets, outputs, s=10, color=ACCENT, alpha=0.7)
    axis.set(xlabel=f'target {unit}'.strip(), ylabel=f'prediction {unit}'.strip())
    plain(axis)
    yield 'predictions', figure

  return report


def make_figure(columns: int = 1, rows: int = 1, size: tuple[float, float] = PANEL) -> tuple['Figure', list]:
  """A figure and its axes, row by row; `size` of each in inches."""
  from matplotlib.backends.backend_agg import FigureCanvasAgg  # takes half a second
  from matplotlib.figure import Figure

  figure = Figure(figsize=np.multiply((columns, rows), size), dpi=DPI, layout='constrained')
  FigureCanvasAgg(figure)
  return figure, list(figure.subplots(rows, columns, squeeze=False).flat)


def plain(axis) -> None:
  axis.spines[['top', 'right']].set_visible(False)
  axis.tick_params(colors=INK, labelsize=SMALL)
