"""Records of benchmarks: results/NAME.json, and a section of README.md generated from it.

python -m benchmarks.record

regenerates all sections, after a table has changed. A benchmark has a function `table` of its rows, and optionally
`picture`, which draws them; for `benchmarks.steps` see report.py.
"""

import contextlib
import importlib
import importlib.metadata
import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from absl import flags

from benchmarks import report
from launch import app
from research.report.tables import fill
from research.train.environment import commit, device

if TYPE_CHECKING:
  from matplotlib.figure import Figure

HERE = Path(__file__).parent
README, RESULTS = HERE / 'README.md', HERE / 'results'
BENCHMARKS = ('loop', 'inputs', 'starts', 'saves', 'scaling')
PACKAGES = ('jax', 'jaxlib', 'flax', 'optax', 'orbax-checkpoint', 'numpy', 'torch', 'keras')

Row = dict[str, Any]
Table = Callable[[Sequence[Row]], str]
Picture = Callable[[Sequence[Row]], 'Figure']


def main() -> None:
  if report.RECORD.exists():
    report.record({})
  for name in BENCHMARKS:
    if (RESULTS / f'{name}.json').exists():
      benchmark = importlib.import_module(f'benchmarks.{name}')
      write(name, benchmark.table, getattr(benchmark, 'picture', None))


def define_record_flag() -> None:
  """Defines --record, which `publish` reads."""
  flags.DEFINE_bool('record', False, 'write the results and their section of README.md')


def publish(name: str, rows: Sequence[Row], table: Table, picture: Picture | None = None) -> None:
  """Prints the rows of a benchmark and, with --record, records them."""
  print(table(rows))
  if flags.FLAGS.record:
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f'{name}.json').write_text(json.dumps({**environment(), 'rows': rows}, indent=1) + '\n')
    write(name, table, picture)


def write(name: str, table: Table, picture: Picture | None = None) -> None:
  """Writes a benchmark's section of the README, and its figure."""
  result = json.loads((RESULTS / f'{name}.json').read_text())
  README.write_text(fill(README.read_text(), section(result, table), f'<!-- {name} -->', f'<!-- /{name} -->'))
  if picture:
    picture(result['rows']).savefig(HERE / f'{name}.png')


def section(result: Mapping[str, Any], table: Table) -> str:
  """The content between a benchmark's markers: its table and environment."""
  versions = ', '.join(f'{name} {version}' for name, version in result['versions'].items())
  where = f'{result["device"]}, {result["cores"]} cores, commit {result["commit"]}, {result["date"]}; {versions}.'
  return f'{table(result["rows"])}\n\n{where}'


def environment() -> dict[str, Any]:
  """What the results depend on."""
  versions = {}
  for name in PACKAGES:
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
      versions[name] = importlib.metadata.version(name)
  date = time.strftime('%Y-%m-%d', time.gmtime())
  return {'date': date, 'commit': commit(), 'device': device(), 'cores': os.cpu_count(), 'versions': versions}


if __name__ == '__main__':
  app.run(main)
