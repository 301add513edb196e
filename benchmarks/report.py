"""Tables and a figure of step times, generated from their record."""

import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from benchmarks.families import FAMILIES
from benchmarks.libraries import LIBRARIES
from research.evaluate.figures import INK, SMALL, THIN, make_figure, plain
from research.report.tables import fill, grid

if TYPE_CHECKING:
  from matplotlib.figure import Figure

HERE = Path(__file__).parent
RECORD, README, PICTURE = HERE / 'results' / 'steps.json', HERE / 'README.md', HERE / 'steps.png'
MARKERS = '<!-- steps -->', '<!-- /steps -->'
OURS = {'ours': 'one', 'ours_two': 'two'}  # devices
COLORS = {
  'ours': '#c8501e',
  'ours_two': '#eba27f',
  'torch_tuned': '#2f6690',
  'torch_compile': '#81a4cd',
  'stock': '#5d6670',
  'keras': '#b4bbc3',
}

Results = Mapping[str, Mapping[str, Any]]  # of each family: see `benchmarks.steps`


class Ratio(NamedTuple):
  """Ratio of our times to another library's; below 1 is faster."""

  median: float
  lowest: float
  highest: float


def ratio(libraries: Mapping[str, Any], ours: str, other: str) -> Ratio | None:
  """The ratio within rounds; None if either was not measured."""
  times = [libraries.get(name, {}).get('step_seconds') for name in (ours, other)]
  if not all(times):
    return None
  ratios = [own / theirs for own, theirs in zip(*times, strict=True)]
  return Ratio(statistics.median(ratios), min(ratios), max(ratios))


def overview(results: Results) -> str:
  """Our time over every other library's, with one and two devices, and whether it meets the target."""
  others = [name for name in LIBRARIES if name not in OURS]
  wanted = [name for name in others if any(name in family.goals for family in FAMILIES.values())]
  heading = [cell for name in others for cell in (LIBRARIES[name].about, *['target'] * (name in wanted))]
  rows = [('step', 'devices', *heading)]
  for family, result in results.items():
    for ours, devices in OURS.items():
      cells = [cell for name in others for cell in _compared(family, result['libraries'], ours, name, name in wanted)]
      rows.append((family, devices, *cells))
  return grid(rows)


def _compared(family: str, libraries: Mapping[str, Any], ours: str, other: str, wanted: bool) -> Sequence[str]:
  found, target = ratio(libraries, ours, other), FAMILIES[family].goals.get(other)
  value = f'{found.median:.2f}' if found else ''
  if not wanted:
    return [value]
  verdict = '' if not found else ' met' if round(found.median, 2) <= target else ' missed'
  return [value, f'{target:.2f}{verdict}']


def details(results: Results) -> str:
  """Times, memory, compilation and fraction of the machine's limit per library, then errors."""
  rows = [('step', 'library', 'ms', 'ours / it', 'from - to', 'peak MB', 'compile s', 'of the limit')]
  notes = []
  for family, result in results.items():
    for name, measured in result['libraries'].items():
      about = LIBRARIES[name].about
      if 'error' in measured:
        notes.append(f'* {family}, {about}: {measured["error"]}')
        continue
      rows.append((family, about, *_figures(result, name)))
      if measured['disturbed']:
        turns = f'{measured["disturbed"]} of {result["rounds"]} turns'
        notes.append(f'* {family}, {about}: in {turns} other processes were at work')
  return '\n'.join([grid(rows), *([''] if notes else []), *notes])


def _figures(result: Mapping[str, Any], name: str) -> list[str]:
  measured = result['libraries'][name]
  seconds = statistics.median(measured['step_seconds'])
  median, lowest, highest = ratio(result['libraries'], 'ours', name)
  return [
    f'{1e3 * seconds:.1f}',
    f'{median:.2f}',
    f'{lowest:.2f} - {highest:.2f}',
    f'{measured["peak_bytes"] / 1e6:.0f}',
    f'{max(0, measured["first_seconds"] - seconds):.1f}',
    f'{shortest(result) / seconds:.0%}',
  ]


def shortest(result: Mapping[str, Any]) -> float:
  """Minimal seconds of a step, for its FLOPs or its bytes at the machine's peak rates."""
  return max(result[work] / result[f'{work}_per_second'] for work in ('flops', 'bytes'))


def sizes(results: Results) -> str:
  """Description, FLOPs, bytes and minimal time of each step."""
  rows = [('step', 'what', 'parameters', 'GFLOP', 'MB', 'limit, ms')]
  for family, result in results.items():
    amounts = f'{result["flops"] / 1e9:.2f}', f'{result["bytes"] / 1e6:.0f}', f'{1e3 * shortest(result):.1f}'
    rows.append((family, FAMILIES[family].about, f'{result["parameters"]:,}', *amounts))
  return grid(rows)


def conditions(results: Results) -> str:
  """Machine and code of each family's measurement; equal ones share a line."""
  lines = {}
  for family, result in results.items():
    versions = ', '.join(f'{name} {version}' for name, version in result['versions'].items())
    rates = f'{result["flops_per_second"] / 1e9:.0f} GFLOP/s, {result["bytes_per_second"] / 1e9:.0f} GB/s'
    line = f'{result["cores"]} cores of {result["device"]} ({rates}), commit {result["commit"]}, {result["date"]}, '
    lines.setdefault(f'{line}{result["rounds"]} rounds; {versions}.', []).append(family)
  return '\n'.join(f'{", ".join(families)}: {line}' for line, families in lines.items())


def bars(results: Results) -> 'Figure':
  """Step times relative to eager PyTorch, the line at 1."""
  figure, (axis,) = make_figure(size=(9.2, 3.8))
  measured = {family: result['libraries'] for family, result in results.items()}
  known = {family: libraries for family, libraries in measured.items() if ratio(libraries, 'torch', 'torch')}
  width = 0.85 / len(COLORS)
  for number, (name, color) in enumerate(COLORS.items()):
    places = np.arange(len(known)) + (number + 0.5) * width - 0.425
    heights = [found.median if (found := ratio(libraries, name, 'torch')) else 0 for libraries in known.values()]
    axis.bar(places, heights, width, color=color, label=LIBRARIES[name].about)
  axis.axhline(1, color=INK, linewidth=THIN, label=LIBRARIES['torch'].about)
  axis.set_xticks(range(len(known)), known)
  axis.set(title='Training step time on CPU (lower is better)', ylabel='step time relative to PyTorch')
  figure.legend(loc='outside lower center', frameon=False, fontsize=SMALL, ncols=len(COLORS) + 1)
  plain(axis)
  return figure


def record(results: Results) -> list[Path]:
  """Updates the record with the measured families, and the figure and table; returns the paths."""
  before = json.loads(RECORD.read_text()) if RECORD.exists() else {}
  merged = {**before, **results}
  merged = {family: merged[family] for family in FAMILIES if family in merged}
  RECORD.parent.mkdir(exist_ok=True)
  RECORD.write_text(json.dumps(merged, indent=1) + '\n')
  bars(merged).savefig(PICTURE)
  README.write_text(fill(README.read_text(), table(merged), *MARKERS))
  return [RECORD, PICTURE, README]


def table(results: Results) -> str:
  """The content between the markers of the README."""
  return '\n\n'.join(part(results) for part in (overview, conditions, sizes, details))
