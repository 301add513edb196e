"""Figures of a model's predictions, drawn without a display."""

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from jax import Array

from research.data.examples import counting
from research.evaluate.exact import confusion_matrix, log_odds, sigmoid
from research.evaluate.reports import Highest, Report, Streamed, Summed
from research.types import Rows

if TYPE_CHECKING:
  from matplotlib.figure import Figure
  from matplotlib.image import AxesImage

COUNTED = 30  # classes of a confusion matrix up to which counts are legible
NAMED = 75  # classes of a larger one that are named
LARGE = 11.0  # inches, of a larger one
PAIRS = 25  # confusions listed next to it
POWER, SHARES = 0.4, (0, 0.01, 0.1, 0.3, 1)  # shade is share ** POWER
INK, ACCENT, FAINT = '#20262e', '#c8501e', '#8a94a0'
SMALL = 8  # points, of text within a figure
NAME_LENGTH = 24  # characters of a class's name that are shown
THIN, THICK = 1.0, 1.6  # points, of lines
PANEL, SQUARE, IMAGE = (4.6, 3.2), (4.0, 4.0), (1.5, 1.9)  # inches, of one set of axes
NARROW, TITLE = 3.6, 0.4  # inches, of the narrowest figure and of the title of any
DPI = 110


def confusion(class_names: Sequence[str]) -> Report:
  """Report that draws the confusion matrix; shades are fractions of the true class.

  Up to 30 classes the numbers are counts. Of more classes not every one is named, and the most frequent confusions
  stand beside the matrix.
  """

  def terms(logits: np.ndarray, rows: Rows) -> np.ndarray:
    counted = counting(rows)
    return confusion_matrix(logits.reshape(*counted.shape, -1)[counted], rows['targets'][counted])

  def draw(counts: np.ndarray) -> Iterator[tuple[str, 'Figure']]:
    if len(class_names) <= COUNTED:
      size = 2.2 + 0.45 * len(class_names)
      figure, (axis,) = make_figure(size=(size, size))
      _draw_matrix(axis, counts, class_names)
    else:
      figure, (axis, confusions) = make_figure(2, 1, (0.75 * LARGE, LARGE))
      axis.get_gridspec().set_width_ratios((2, 1))
      colorbar = figure.colorbar(_draw_matrix(axis, counts, class_names), ax=axis, shrink=0.5, pad=0.01)
      colorbar.set_ticks([share**POWER for share in SHARES], labels=[f'{share:g}' for share in SHARES], fontsize=SMALL)
      colorbar.set_label('fraction of the true class', fontsize=SMALL)
      _draw_confusions(confusions, counts, class_names)
    yield 'confusion_matrix', figure

  return Streamed('confusion', lambda size: Summed(terms, draw))


def _draw_matrix(axis, counts: np.ndarray, class_names: Sequence[str]) -> 'AxesImage':
  few, number = len(class_names) <= COUNTED, len(class_names)
  shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
  image = axis.imshow(shares**POWER, cmap='Blues', vmin=0, vmax=1.3 if few else 1)  # makes rare confusions visible
  for row, column in np.argwhere(counts) if few else ():
    color = 'white' if shares[row, column] > 0.3 else INK
    axis.text(column, row, counts[row, column], ha='center', va='center', fontsize=SMALL, color=color)
  named = range(0, number, -(-number // NAMED))
  labels = [shortened(class_names[number]) for number in named]
  axis.set_xticks(named, labels, rotation=45 if few else 90, ha='right' if few else 'center', fontsize=SMALL)
  axis.set_yticks(named, labels, fontsize=SMALL)
  axis.set(xlabel='predicted class', ylabel='true class')
  return image


def _draw_confusions(axis, counts: np.ndarray, class_names: Sequence[str]) -> None:
  """Bars for the pairs of classes that are confused most often."""
  wrong = np.where(np.eye(len(counts), dtype=bool), 0, counts)
  pairs = np.argsort(-wrong, axis=None, kind='stable')[: min(PAIRS, np.count_nonzero(wrong))]
  true, predicted = np.unravel_index(pairs, wrong.shape)
  labels = [f'{shortened(class_names[a])} as {shortened(class_names[b])}' for a, b in zip(true, predicted, strict=True)]
  axis.barh(range(len(pairs)), wrong[true, predicted], color=ACCENT)
  axis.set_yticks(range(len(pairs)), labels, fontsize=SMALL)
  axis.set(xlabel='examples', ylim=(max(len(pairs), 1) - 0.5, -0.5), title='most frequent confusions')
  axis.xaxis.get_major_locator().set_params(integer=True)
  plain(axis)


def mistakes(
  class_names: Sequence[str], max_count: int = 18, picture: Callable[[Array], Array] = lambda inputs: inputs
) -> Report:
  """Report that draws the most confident mistakes, the most confident first.

  `picture` turns inputs that are not images into images [examples, height, width].
  """

  def draw(logits: np.ndarray, rows: Rows) -> Iterator[tuple[str, 'Figure']]:
    if not len(logits):
      return
    figure, axes = make_grid(len(logits), 6, IMAGE)
    images = np.asarray(picture(rows['inputs']))
    labels = zip(logits.argmax(-1), sigmoid(log_odds(logits).max(-1)), rows['targets'], strict=True)
    for axis, image, (guess, sure, target) in zip(axes, images, labels, strict=True):
      axis.set_axis_off()
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
    axis.plot([low, high], [low, high], color=FAINT, linewidth=THIN, label='prediction = target')
    axis.scatter(targets, outputs, s=10, color=ACCENT, alpha=0.7, label='examples')
    unit_of = f' ({unit})' if unit else ''
    axis.set(xlabel=f'target{unit_of}', ylabel=f'prediction{unit_of}')
    axis.legend(frameon=False, fontsize=SMALL)
    plain(axis)
    yield 'predictions', figure

  return report


def make_figure(columns: int = 1, rows: int = 1, size: tuple[float, float] = PANEL) -> tuple['Figure', list]:
  """A figure with room for a title, and its axes, row by row; `size` of each in inches."""
  from matplotlib.backends.backend_agg import FigureCanvasAgg  # takes half a second
  from matplotlib.figure import Figure

  width, height = np.multiply((columns, rows), size)
  figure = Figure(figsize=(max(width, NARROW), height + TITLE), dpi=DPI, layout='constrained')
  FigureCanvasAgg(figure)
  return figure, list(figure.subplots(rows, columns, squeeze=False).flat)


def make_grid(count: int, max_columns: int, size: tuple[float, float] = PANEL) -> tuple['Figure', list]:
  """A figure of `count` axes in rows that are as full as they can be."""
  rows = -(-count // max_columns)
  figure, axes = make_figure(-(-count // rows), rows, size)
  for axis in axes[count:]:
    axis.remove()
  return figure, axes[:count]


def shortened(name: str) -> str:
  """Both ends of a class's name that is too long."""
  half = NAME_LENGTH // 2
  return name if len(name) <= NAME_LENGTH else f'{name[:half].strip()}…{name[1 - half :].strip()}'


def plain(axis) -> None:
  axis.spines[['top', 'right']].set_visible(False)
  axis.tick_params(colors=INK, labelsize=SMALL)
