"""Learning curves of a run."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from research.errors import naming
from research.evaluate.figures import ACCENT, FAINT, THICK, make_figure, plain
from research.train import recorder

if TYPE_CHECKING:
  from matplotlib.figure import Figure


def draw_curves(workdir: Path) -> None:
  """Draws figures/learning_curves.png from metrics.jsonl, if it has any metrics yet."""
  records, folder = recorder.read(workdir), workdir / 'figures'
  if any(name.startswith('train/') for record in records for name in record):
    folder.mkdir(exist_ok=True)
    with naming(folder):
      learning_curves(records).savefig(folder / 'learning_curves.png')


def learning_curves(records: Sequence[Mapping[str, float]]) -> 'Figure':
  """Metrics of training and validation over steps; `records` are those of metrics.jsonl."""
  names = sorted({name.split('/')[1] for record in records for name in record if name.startswith('train/')})
  figure, axes = make_figure(columns=len(names))
  for axis, name in zip(axes, names, strict=True):
    for part, color, marker in (('train', FAINT, ''), ('validation', ACCENT, 'o')):
      points = [(record['step'], record[f'{part}/{name}']) for record in records if f'{part}/{name}' in record]
      if points:
        axis.plot(*np.transpose(points), color=color, label=part, linewidth=THICK, marker=marker, markersize=4)
    axis.set(xlabel='step', ylabel=name.replace('_', ' '))
    values = [value for line in axis.lines for value in line.get_ydata()]
    if values and 0 < 20 * min(values) < max(values):
      axis.set_yscale('log')
    axis.legend(frameon=False)
    plain(axis)
  return figure
