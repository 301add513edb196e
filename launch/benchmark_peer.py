"""A training step of a recurrent layer, ours and torch's, each measurement in a process of its own, in turn.

python -m launch.benchmark --peer=torch --rounds=5

One layer of 256 units on 32 sequences of 64 steps of 256 features, squared error of all outputs, Adam, float32. Torch
runs with the allocator it comes with. Of the extra `peers`.
"""

import importlib.util
import itertools
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

from absl import flags

from launch import app
from launch.peers import strata_steps, torch_steps
from research.errors import ConfigError, RunError

LIBRARY = flags.DEFINE_enum('library', 'strata', ['strata', 'torch'], 'whose layer is measured')
CELL = flags.DEFINE_enum('cell', 'lstm', ['lstm', 'gru'], 'kind of layer')


def main() -> None:
  steps = strata_steps if LIBRARY.value == 'strata' else torch_steps
  print(seconds_of(steps(CELL.value)))


def compare(rounds: int) -> str:
  """A line for each cell: median times of a step, and of the ratios of times measured one after the other."""
  if importlib.util.find_spec('torch') is None:
    raise ConfigError("--peer=torch: torch is not installed; pip install -e '.[peers]'")
  return '\n'.join(_compared(cell, rounds) for cell in ('lstm', 'gru'))


def _compared(cell: str, rounds: int) -> str:
  times = {'strata': [], 'torch': []}
  for library in itertools.chain.from_iterable(itertools.repeat(tuple(times), rounds)):
    command = [sys.executable, '-m', 'launch.benchmark_peer', f'--library={library}', f'--cell={cell}']
    run = subprocess.run(command, stdout=subprocess.PIPE, text=True)  # its messages are ours
    if run.returncode:
      raise RunError(f'{" ".join(command[1:])} ended with {run.returncode}; see above')
    times[library].append(float(run.stdout))
  ratios = [ours / theirs for ours, theirs in zip(*times.values(), strict=True)]
  ours, theirs = (f'{1e3 * statistics.median(values):.1f}' for values in times.values())
  spread = f'median {statistics.median(ratios):.2f}, from {min(ratios):.2f} to {max(ratios):.2f}'
  return f'{cell}: {ours} ms a step, torch {theirs} ms; ratio of times: {spread}'


def seconds_of(run: Callable[[int], None], steps: int = 20, blocks: int = 5) -> float:
  """Median time of a step over blocks of steps, the first left out."""
  times = []
  for _ in range(blocks + 1):
    start = time.perf_counter()
    run(steps)
    times.append((time.perf_counter() - start) / steps)
  return statistics.median(times[1:])


if __name__ == '__main__':
  app.run(main)
