"""Startup time to the end of the first step, with a warm compilation cache.

python -m benchmarks.starts

A start is a process of `launch.train` on cnn_digits in a new workdir; the times of its first State and first step are
read from metrics.jsonl. Importing `launch.train` alone is measured, too.
"""

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from absl import flags

from benchmarks.record import Row, define_record_flag, publish
from launch import app
from research.errors import RunError
from research.paths import ROOT
from research.report.tables import grid

CONFIG = 'experiments/cnn_digits/config.py'
TARGET = 4.0  # seconds to the first step
PARTS = {'imports': 'Python and its imports', 'first_state': 'to the first State', 'first_step': 'to the first step'}
HASHED = {'first_state': 0, 'first_step': 1}  # steps whose hash is written immediately

Times = Mapping[str, float]


def main() -> None:
  start(CONFIG)  # compiles
  starts = [{'imports': imports(), **start(CONFIG)} for _ in range(flags.FLAGS.rounds)]
  publish('starts', summary(starts), table)


def imports() -> float:
  """Seconds of a process that only imports `launch.train`."""
  begin = time.perf_counter()
  subprocess.run([sys.executable, '-c', 'import launch.train'], cwd=ROOT, check=True)
  return time.perf_counter() - begin


def start(config: str) -> dict[str, float]:
  """Seconds from process start to the first State and the first step, after which it is killed."""
  with tempfile.TemporaryDirectory() as folder:
    workdir, messages = Path(folder) / 'run', Path(folder) / 'messages'
    command = ['launch.train', f'--config={config}', f'--workdir={workdir}', *app.machine_flags()]
    with messages.open('w') as output:
      begin = time.perf_counter()
      process = subprocess.Popen([sys.executable, '-m', *command], cwd=ROOT, stdout=output, stderr=output)
    try:
      return {part: _wait(process, workdir, step) - begin for part, step in HASHED.items()}
    except RunError as error:
      raise RunError(f'{error}: {messages.read_text()}') from error
    finally:
      process.kill()
      process.wait()


def _wait(process: subprocess.Popen, workdir: Path, step: int) -> float:
  """Waits for the hash of a step and returns its time. Raises RunError if the process exits without it."""
  path, line = workdir / 'metrics.jsonl', f'{{"step": {step}, "state_sha256"'
  while not (path.exists() and line in path.read_text()):
    if process.poll() is not None:
      raise RunError(f'python -m launch.train ended with {process.returncode} before step {step}')
    time.sleep(0.002)
  return time.perf_counter()


def summary(starts: Sequence[Times]) -> list[Row]:
  """A row per part of a start: median, minimum and maximum."""
  columns = {part: [times[part] for times in starts] for part in PARTS}
  return [
    {'part': PARTS[part], 'seconds': statistics.median(seconds), 'spread': [min(seconds), max(seconds)]}
    for part, seconds in columns.items()
  ]


def table(rows: Sequence[Row]) -> str:
  """Seconds of each part."""
  cells = [(row['part'], *(f'{value:.2f}' for value in (row['seconds'], *row['spread']))) for row in rows]
  return grid([('second start', 'seconds, median', 'from', 'to'), *cells])


if __name__ == '__main__':
  flags.DEFINE_integer('rounds', 5, 'number of starts', lower_bound=1)
  define_record_flag()
  app.run(main)
