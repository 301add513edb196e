"""Several runs side by side: their curves in one figure, and a table of what differs between them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from research.errors import WorkdirError
from research.evaluate.figures import SMALL, THICK, THIN, make_grid
from research.report.curves import COLUMNS, Records, finish_panel, panels_of, points_of
from research.report.tables import grid
from research.train import recorder
from research.train.workdir import facts_of, saved_config

if TYPE_CHECKING:
  from matplotlib.figure import Figure

# Okabe and Ito (2008), which the color-blind can tell apart; then the same again, dashed and dotted.
COLORS = ('#0072b2', '#d55e00', '#009e73', '#cc79a7', '#e69f00', '#56b4e9', '#20262e')
STYLES = ('-', '--', ':')


class History(NamedTuple):
  """What is known of a run that may still go on."""

  facts: Mapping[str, object]  # the config's values by dotted name
  records: Records  # of metrics.jsonl


def read_runs(workdirs: Sequence[Path]) -> dict[str, History]:
  """The runs by the shortest names that tell them apart. Raises WorkdirError for a folder that is no run."""
  runs = {}
  for name, workdir in zip(_names(workdirs), workdirs, strict=True):
    facts = facts_of(saved_config(workdir))
    if not (workdir / 'metrics.jsonl').exists():
      raise WorkdirError(f'workdir {workdir}: has no metrics.jsonl yet; wait for the first steps')
    runs[name] = History(facts, recorder.read(workdir))
  return runs


def differences_table(runs: Mapping[str, History]) -> str:
  """A row for each field of the config that is not the same in all runs, then the newest validation metrics."""
  names = dict.fromkeys(name for run in runs.values() for name in run.facts)
  different = [name for name in names if len({repr(run.facts.get(name)) for run in runs.values()}) > 1]
  rows = [('', *runs), *([name, *(str(run.facts.get(name, '')) for run in runs.values())] for name in different)]
  newest = [_newest(run.records) for run in runs.values()]
  for name in dict.fromkeys(name for metrics in newest for name in metrics):
    rows.append([name, *(f'{metrics[name]:.5g}' if name in metrics else '' for metrics in newest)])
  return grid(rows)


def compared_curves(runs: Mapping[str, History]) -> 'Figure':
  """A panel for each metric, a color for each run: validation thick, training thin."""
  panels = panels_of([run.records for run in runs.values()])
  if not panels:
    raise WorkdirError(f'{", ".join(runs)}: no training metrics are logged yet; wait for the first ones')
  figure, axes = make_grid(len(panels), COLUMNS)
  for axis, (label, metric) in zip(axes, panels.items(), strict=True):
    for number, run in enumerate(runs.values()):
      line = {'color': COLORS[number % len(COLORS)], 'linestyle': STYLES[number // len(COLORS) % len(STYLES)]}
      for part, width, marker in (('train', THIN / 2, ''), ('validation', THICK, 'o')):
        if points := points_of(run.records, f'{part}/{metric}'):
          axis.plot(*np.transpose(points), linewidth=width, marker=marker, markersize=3, **line)
    finish_panel(axis, label)
  _legend(figure, axes[0], list(runs))
  return figure


def _legend(figure: 'Figure', axis, names: Sequence[str]) -> None:
  for number, name in enumerate(names):
    style = STYLES[number // len(COLORS) % len(STYLES)]
    axis.plot([], [], color=COLORS[number % len(COLORS)], linestyle=style, linewidth=THICK, label=name)
  for part, width, marker in (('validation', THICK, 'o'), ('train', THIN / 2, '')):
    axis.plot([], [], color='black', linewidth=width, marker=marker, markersize=3, label=part)
  columns = max(1, min(len(names) + 2, int(figure.get_size_inches()[0] // 2.5)))
  figure.legend(loc='outside lower center', ncols=columns, frameon=False, fontsize=SMALL)


def _newest(records: Records) -> dict[str, float]:
  """The validation metrics that were measured last."""
  return {name: record[name] for record in records for name in record if name.startswith('validation/')}


def _names(workdirs: Sequence[Path]) -> list[str]:
  """The last parts of the paths, as many as it takes for all to differ."""
  longest = max(len(workdir.parts) for workdir in workdirs)
  for count in range(1, longest + 1):
    names = ['/'.join(workdir.parts[-count:]) for workdir in workdirs]
    if len(set(names)) == len(names):
      return names
  raise WorkdirError('the same workdir is given twice; give each run once')
