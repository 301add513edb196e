"""Curves of the metrics of one run or of several, over steps."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from research.errors import naming
from research.evaluate.figures import ACCENT, FAINT, SMALL, THICK, make_grid, plain
from research.train import recorder
from research.train.modules import experiment_name
from research.train.workdir import saved_config

if TYPE_CHECKING:
  from matplotlib.figure import Figure

Records = Sequence[Mapping[str, float]]
Points = Sequence[tuple[int, float]]
COLUMNS = 3  # of panels, which a page has room for
LAST = ('learning_rate', 'gradient_norm', 'update_norm')  # after the metrics


def draw_curves(workdir: Path) -> None:
  """Draws figures/learning_curves.png from metrics.jsonl, if it has any metrics yet."""
  records, folder = recorder.read(workdir), workdir / 'figures'
  if any(name.startswith('train/') for record in records for name in record):
    folder.mkdir(exist_ok=True)
    figure = learning_curves(records)
    figure.suptitle(f'{experiment_name(saved_config(workdir))}\nlearning curves', fontsize=10)
    with naming(folder):
      figure.savefig(folder / 'learning_curves.png')


def learning_curves(records: Records) -> 'Figure':
  """A panel for each metric of training, which validation may share; `records` are those of metrics.jsonl."""
  panels = panels_of([records])
  figure, axes = make_grid(len(panels), COLUMNS)
  for axis, (label, name) in zip(axes, panels.items(), strict=True):
    for part, color, marker in (('train', FAINT, ''), ('validation', ACCENT, 'o')):
      if points := points_of(records, f'{part}/{name}'):
        axis.plot(*np.transpose(points), color=color, label=part, linewidth=THICK, marker=marker, markersize=4)
    finish_panel(axis, label)
    axis.legend(frameon=False, fontsize=SMALL)
  return figure


def panels_of(runs: Sequence[Records]) -> dict[str, str]:
  """Names of the metrics of training by their labels; one that equals another in all runs shares its panel."""
  found = {name.split('/')[1] for records in runs for record in records for name in record if name.startswith('train/')}
  groups: dict[tuple, list[str]] = {}
  for name in sorted(found, key=lambda name: (name in LAST, name != 'loss', name)):
    values = [points_of(records, f'{part}/{name}') for records in runs for part in ('train', 'validation')]
    groups.setdefault(tuple(tuple(points) for points in values), []).append(name)
  return {' = '.join(names).replace('_', ' '): names[0] for names in groups.values()}


def points_of(records: Records, name: str) -> Points:
  """Step and value of a metric, wherever it was logged."""
  return [(record['step'], record[name]) for record in records if name in record]


def finish_panel(axis, label: str) -> None:
  """Labels, and a logarithmic scale where the values span a factor of more than 20."""
  axis.set(xlabel='step', ylabel=label)
  values = [value for line in axis.lines for value in line.get_ydata()]
  if values and 0 < 20 * min(values) < max(values):
    axis.set_yscale('log')
  plain(axis)
