"""The process that measures one family in one library: reports its start, then each requested block of steps.

python -m benchmarks.measure FAMILY LIBRARY WEIGHTS, started by `benchmarks.steps`. Each input line is the duration of a
block in seconds; each output line starting with { is an answer.
"""

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.families import FAMILIES
from benchmarks.libraries import LIBRARIES, Run

STATUS, PROCESSORS = Path('/proc/self/status'), Path('/proc/stat')


def main(family: str, library: str, weights: str) -> None:
  run = LIBRARIES[library].begin(FAMILIES[family], Path(weights))
  _tell(start(run))
  for line in sys.stdin:
    _tell(block(run, float(line)))


def start(run: Run) -> dict[str, Any]:
  """The losses before the first two steps, and the seconds of the first, including compilation."""
  begin = time.perf_counter()
  first = run(1)
  return {'first_seconds': time.perf_counter() - begin, 'losses': [first, run(1)]}


def block(run: Run, seconds: float) -> dict[str, Any]:
  """Seconds per step over a block of steps, after a few to warm up, with context.

  The context is the peak memory so far, and the average number of processors kept busy by others.
  """
  begin = time.perf_counter()
  run(1)
  rate = 1 / (time.perf_counter() - begin)
  begin = time.perf_counter()
  run(warm := max(1, round(rate * seconds / 4)))
  steps = max(1, round(warm * seconds / (time.perf_counter() - begin)))
  begin, others = time.perf_counter(), others_seconds()
  run(steps)
  seconds = time.perf_counter() - begin
  return {
    'step_seconds': seconds / steps,
    'peak_bytes': peak_bytes(),
    'others': max(0, others_seconds() - others) / seconds,
  }


def others_seconds() -> float:
  """CPU time of other processes since boot; 0 if unknown."""
  if not PROCESSORS.exists():
    return 0.0
  user, nice, system = map(int, PROCESSORS.read_text().split()[1:4])
  return (user + nice + system) / os.sysconf('SC_CLK_TCK') - time.process_time()


def peak_bytes() -> int:
  """Peak physical memory of this process; 0 if unknown."""
  lines = STATUS.read_text().splitlines() if STATUS.exists() else []
  return next((1024 * int(line.split()[1]) for line in lines if line.startswith('VmHWM')), 0)


def _tell(answer: dict[str, Any]) -> None:
  print(json.dumps(answer), flush=True)


if __name__ == '__main__':
  main(*sys.argv[1:])
