"""Scaling of step time with batch, length and depth, compared with FLOPs, and on two devices.

python -m benchmarks.scaling --rounds=5

The families are those of `benchmarks.steps` with one size changed, as launched, on one device. Dashed lines are
proportional to the FLOPs of products and convolutions, through the largest size. The devices are parts of one CPU, so
total FLOPs are the same for any number of them.
"""

import statistics
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import jax
from absl import flags

from benchmarks import limits, measure
from benchmarks.families import Family, images, texts
from benchmarks.libraries import LIBRARIES
from benchmarks.record import Row, define_record_flag, publish
from launch import app
from research.evaluate.figures import ACCENT, FAINT, INK, SMALL, THICK, THIN, make_figure, plain
from research.report.tables import grid

if TYPE_CHECKING:
  from matplotlib.figure import Figure


def mlp(batch: int = 128, depth: int = 2) -> Family:
  return Family('mlp', '', images(batch, 784), lambda library: library.mlp(784, (512,) * depth, 10))


def cnn(batch: int = 128) -> Family:
  return Family('cnn', '', images(batch, 28, 28, 1), lambda library: library.cnn(28, (32, 64), 128, 10))


def lstm(batch: int = 32, length: int = 64) -> Family:
  return Family('lstm', '', texts(batch, length, 256), lambda library: library.language_model('lstm', 256, 256))


def gpt(batch: int = 16, length: int = 128, depth: int = 4) -> Family:
  return Family('gpt', '', texts(batch, length, 256), lambda library: library.gpt(256, depth, 256, 8, length))


FAMILIES = {family.__name__: family for family in (mlp, cnn, lstm, gpt)}
COLORS = {'mlp': FAINT, 'cnn': ACCENT, 'lstm': '#2f6690', 'gpt': INK}
CURVES: Mapping[str, Mapping[str, Sequence[int]]] = {
  'batch': {'mlp': (16, 32, 64, 128, 256, 512), 'cnn': (16, 32, 64, 128, 256)},
  'length': {'lstm': (16, 32, 64, 128, 256), 'gpt': (32, 64, 128, 256)},
  'depth': {'mlp': (1, 2, 4, 8, 16), 'gpt': (1, 2, 4, 8)},
  'devices': dict.fromkeys(FAMILIES, (1, 2)),
}


class Point(NamedTuple):
  """A family with one of its sizes changed."""

  against: str
  family: str
  size: int

  @property
  def devices(self) -> int:
    return self.size if self.against == 'devices' else 1

  def build(self) -> Family:
    sizes = {} if self.against == 'devices' else {self.against: self.size}
    return FAMILIES[self.family](**sizes)


def main() -> None:
  points = [Point(*at, size) for at, sizes in curves().items() for size in sizes]
  publish('scaling', measured(points, flags.FLAGS.rounds, flags.FLAGS.seconds), table, picture)


def curves() -> dict[tuple[str, str], Sequence[int]]:
  """The sizes of each curve."""
  return {(against, family): sizes for against, of in CURVES.items() for family, sizes in of.items()}


def measured(points: Sequence[Point], rounds: int, seconds: float) -> list[Row]:
  """A row per point; those with the same number of devices take turns within a process."""
  times: dict[Point, float] = {}
  with ProcessPoolExecutor(1, get_context('spawn'), max_tasks_per_child=1) as processes:
    for devices in sorted({point.devices for point in points}):
      own = [point for point in points if point.devices == devices]
      times |= zip(own, processes.submit(in_turn, own, devices, rounds, seconds).result(), strict=True)
  return [
    {**point._asdict(), 'seconds': times[point], 'flops': limits.work(point.build())['flops']} for point in points
  ]


def in_turn(points: Sequence[Point], devices: int, rounds: int, seconds: float) -> list[float]:
  """Seconds per step of each point, median over rounds."""
  jax.config.update('jax_num_cpu_devices', devices)
  with tempfile.TemporaryDirectory() as folder:
    runs = [LIBRARIES['ours'].begin(point.build(), Path(folder) / 'weights.npz') for point in points]
  blocks = [[measure.block(run, seconds)['step_seconds'] for run in runs] for _ in range(rounds)]
  return [statistics.median(times) for times in zip(*blocks, strict=True)]


def table(rows: Sequence[Row]) -> str:
  """A row per curve; the last column is the ratio of step time to the dashed line."""
  cells = [('against', 'family', 'sizes', 'ms a step', 'over the line')]
  for (against, family), points in by_curve(rows).items():
    sizes = (str(point['size']) for point in points)
    times = (f'{1e3 * point["seconds"]:.1f}' for point in points)
    over = (f'{point["seconds"] / line:.2f}' for point, line in zip(points, expected(points), strict=True))
    cells.append((against, family, *map(' / '.join, (sizes, times, over))))
  return grid(cells)


def by_curve(rows: Sequence[Row]) -> dict[tuple[str, str], list[Row]]:
  """The points of each curve."""
  found: dict[tuple[str, str], list[Row]] = {}
  for row in rows:
    found.setdefault((row['against'], row['family']), []).append(row)
  return found


def expected(points: Sequence[Row]) -> list[float]:
  """Seconds proportional to FLOPs, through the last point."""
  last = points[-1]
  return [last['seconds'] * point['flops'] / last['flops'] for point in points]


def picture(rows: Sequence[Row]) -> 'Figure':
  """All curves, with dashed lines proportional to FLOPs."""
  figure, axes = make_figure(2, 2)
  axis_of = dict(zip(CURVES, axes, strict=True))
  for (against, family), points in by_curve(rows).items():
    axis, sizes = axis_of[against], [point['size'] for point in points]
    line = {'color': COLORS[family], 'linewidth': THICK}
    axis.loglog(sizes, [1e3 * point['seconds'] for point in points], marker='o', markersize=4, label=family, **line)
    axis.loglog(sizes, [1e3 * seconds for seconds in expected(points)], linestyle='--', **{**line, 'linewidth': THIN})
    axis.set(xlabel=against, ylabel='ms per step', title=f'step time over {against}')
    axis.yaxis.set_minor_formatter('')
    plain(axis)
  for against, axis in axis_of.items():
    sizes = sorted(set().union(*CURVES[against].values()))
    axis.set_xticks(sizes, map(str, sizes), minor=False)
    axis.set_xticks([], minor=True)
  lines = {line.get_label(): line for axis in axes for line in axis.get_lines() if line.get_label() in FAMILIES}
  figure.legend(lines.values(), lines, loc='outside lower center', ncols=len(lines), frameon=False, fontsize=SMALL)
  return figure


if __name__ == '__main__':
  flags.DEFINE_integer('rounds', 5, 'turns of each point', lower_bound=1)
  flags.DEFINE_float('seconds', 1.0, 'approximate duration of a turn', lower_bound=0.01)
  define_record_flag()
  app.run(main)
