"""Pictures of a run and of what its model does, drawn without a display."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from scipy.special import softmax

from research.evaluate.evaluator import Report
from research.evaluate.exact import confusion_matrix

INK, ACCENT, FAINT = '#20262e', '#c8501e', '#8a94a0'


def learning_curves(records: Sequence[Mapping[str, float]]) -> Figure:
  """Every metric that training and validation share, over steps; `records` are those of metrics.jsonl."""
  names = sorted({name.split('/')[1] for record in records for name in record if name.startswith('train/')})
  figure, axes = _figure(len(names), 1, (4.2, 3.2))
  for axis, name in zip(axes, names, strict=True):
    for part, color in (('train', FAINT), ('validation', ACCENT)):
      points = [(record['step'], record[f'{part}/{name}']) for record in records if f'{part}/{name}' in record]
      if points:
        axis.plot(*zip(*points, strict=True), color=color, label=part, linewidth=1.6)
    axis.set(xlabel='step', ylabel=name.replace('_', ' '))
    if 'loss' in name and min((line.get_ydata().min() for line in axis.lines), default=0) > 0:
      axis.set_yscale('log')
    axis.legend(frameon=False)
    _plain(axis)
  return figure


def confusion(classes: Sequence[str]) -> Report:
  """Report that draws the confusion matrix; shades are parts of the true class, numbers are counts."""

  def report(logits: np.ndarray, rows: Mapping[str, np.ndarray]) -> Iterator[tuple[str, Figure]]:
    counts = confusion_matrix(logits, rows['targets'])
    size = 2.2 + 0.45 * len(classes)
    figure, (axis,) = _figure(1, 1, (size, size))
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    axis.imshow(shares**0.4, cmap='Blues', vmin=0, vmax=1.3)
    for (row, column), count in np.ndenumerate(counts):
      if count:
        axis.text(column, row, count, ha='center', va='center', fontsize=8, color=INK)
    axis.set_xticks(range(len(classes)), classes, rotation=45, ha='right', fontsize=8)
    axis.set_yticks(range(len(classes)), classes, fontsize=8)
    axis.set(xlabel='predicted', ylabel='true')
    yield 'confusion_matrix', figure

  return report


def mistakes(classes: Sequence[str], rows: int = 3, columns: int = 6) -> Report:
  """Report that draws the images whose wrong class the model was surest of, the surest first."""

  def report(logits: np.ndarray, examples: Mapping[str, np.ndarray]) -> Iterator[tuple[str, Figure]]:
    probabilities, targets = softmax(logits.astype(np.float64), axis=-1), examples['targets']
    confidence = np.where(logits.argmax(-1) == targets, 0, probabilities.max(-1))
    figure, axes = _figure(columns, rows, (1.5, 1.8))
    for axis, number in zip(axes, np.argsort(-confidence, kind='stable'), strict=False):
      if confidence[number]:
        axis.imshow(examples['inputs'][number].squeeze(), cmap='gray_r')
        guess, truth = classes[logits[number].argmax()], classes[targets[number]]
        axis.set_title(f'{guess} {confidence[number]:.0%}\nis {truth}', fontsize=8)
    for axis in axes:
      axis.set_axis_off()
    yield 'mistakes', figure

  return report


def predictions(unit: str = '') -> Report:
  """Report that draws predictions over targets; a perfect model is the diagonal."""

  def report(outputs: np.ndarray, rows: Mapping[str, np.ndarray]) -> Iterator[tuple[str, Figure]]:
    targets, outputs = rows['targets'].ravel(), outputs.ravel()
    low, high = min(targets.min(), outputs.min()), max(targets.max(), outputs.max())
    figure, (axis,) = _figure(1, 1, (4, 4))
    axis.plot([low, high], [low, high], color=FAINT, linewidth=1)
    axis.scatter(targets, outputs, s=10, color=ACCENT, alpha=0.7)
    axis.set(xlabel=f'target {unit}'.strip(), ylabel=f'prediction {unit}'.strip())
    _plain(axis)
    yield 'predictions', figure

  return report


def _figure(columns: int, rows: int, size: tuple[float, float]) -> tuple[Figure, list]:
  """A figure and its axes, row by row; `size` in inches is that of one."""
  figure = Figure(figsize=(columns * size[0], rows * size[1]), dpi=110, layout='constrained')
  FigureCanvasAgg(figure)
  return figure, list(figure.subplots(rows, columns, squeeze=False).flat)


def _plain(axis) -> None:
  axis.spines[['top', 'right']].set_visible(False)
  axis.tick_params(colors=INK, labelsize=8)
