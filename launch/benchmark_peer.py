"""A training step of a recurrent layer, ours and torch's, each measurement in a process of its own, in turn.

python -m launch.benchmark --peer=torch --rounds=5

One layer of 256 units on 32 sequences of 64 steps of 256 features, squared error of all outputs, Adam, float32. Torch
runs with the allocator it comes with. Ours runs once as JAX comes, on one CPU device whose products take every core,
and once on two (JAX_NUM_CPU_DEVICES=2) that share the batch as in `launch.train`, so that what is computed element by
element takes two cores as well. Of the extra `peers`.
"""

import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

from absl import flags

from launch import app
from launch.children import measured
from launch.peers import check_torch, strata_steps, torch_steps

LIBRARY = flags.DEFINE_enum('library', 'strata', ['strata', 'torch'], 'whose layer is measured')
CELL = flags.DEFINE_enum('cell', 'lstm', ['lstm', 'gru'], 'kind of layer')


def main() -> None:
  steps = strata_steps if LIBRARY.value == 'strata' else torch_steps
  print(seconds_of(steps(CELL.value)))


def compare(rounds: int) -> str:
  """Lines for each cell: median times of a step, and of the ratios of times measured one after the other."""
  check_torch()
  return '\n'.join(_compared(cell, rounds) for cell in ('lstm', 'gru'))


def _compared(cell: str, rounds: int) -> str:
  turns = [(_measured(cell, 1), _measured(cell, 2), _measured(cell)) for _ in range(rounds)]
  one, two, theirs = zip(*turns, strict=True)
  return '\n'.join(
    f'{cell} on {devices}: {1e3 * statistics.median(ours):.1f} ms a step, {_beside(ours, theirs)}'
    for devices, ours in (('one device', one), ('two devices', two))
  )


def _measured(cell: str, devices: int = 0) -> float:
  """Seconds of a step of ours on so many CPU devices, or of torch's."""
  flags = f'--library={"strata" if devices else "torch"}', f'--cell={cell}'
  return measured('launch.benchmark_peer', flags, JAX_NUM_CPU_DEVICES=str(devices or 1))


def _beside(ours: Sequence[float], theirs: Sequence[float]) -> str:
  ratios = [own / other for own, other in zip(ours, theirs, strict=True)]
  spread = f'median {statistics.median(ratios):.2f}, from {min(ratios):.2f} to {max(ratios):.2f}'
  return f'torch {1e3 * statistics.median(theirs):.1f} ms; ratio of times: {spread}'


def seconds_of(run: Callable[[int], Any], steps: int = 20, blocks: int = 5) -> float:
  """Median time of a step over blocks of steps, the first left out."""
  times = []
  for _ in range(blocks + 1):
    start = time.perf_counter()
    run(steps)
    times.append((time.perf_counter() - start) / steps)
  return statistics.median(times[1:])


if __name__ == '__main__':
  app.run(main)
