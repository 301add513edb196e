"""Cost of checkpoints: the fraction of time spent saving a State of 100 million parameters once a minute.

python -m benchmarks.saves --parameters=100_000_000 --seconds=60

The training loop runs a multi-layer perceptron with Adam, whose State is three times its parameters, and saves every
`seconds`. A save blocks while it copies the State, and slows down steps while a thread writes the copy. Its cost is the
extra time of those steps. Memory is the peak of the process, before the first save and after the last one.
"""

import collections
import contextlib
import itertools
import math
import statistics
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import optax
from absl import flags

from benchmarks.measure import peak_bytes
from benchmarks.record import Row, define_record_flag, publish
from launch import app
from research.data.examples import Arrays
from research.data.source import Source
from research.errors import ConfigError
from research.models.mlp import MLP
from research.objectives.classification import softmax_cross_entropy
from research.report.tables import grid
from research.tasks.supervised import supervised
from research.train.checkpoint import UNFINISHED
from research.train.config import Config
from research.train.experiment import Experiment
from research.train.loop import train
from research.train.run import Record

LAYERS, BATCH, CLASSES = 6, 8, 10


class Step(NamedTuple):
  """A step of the loop, including any save before it."""

  seconds: float
  writing: bool  # whether a save was still being written at its end


def main() -> None:
  values = flags.FLAGS
  publish('saves', [measure(values.parameters, values.rounds, values.seconds)], table)


def measure(parameters: int, rounds: int, seconds: float) -> Row:
  """Cost of a save, median over rounds."""
  config = Config(steps=10**9, batch_size=BATCH, log_every=1, eval_every=0, checkpoint_every=0)
  experiment = perceptron(parameters)
  with contextlib.closing(train(config, experiment=experiment)) as records:
    pace = statistics.median(step.seconds for step in itertools.islice(steps(records), 2, 8))
  config.checkpoint_every = every = max(2, round(seconds / pace))
  with (
    tempfile.TemporaryDirectory() as workdir,
    contextlib.closing(train(config, workdir, experiment=experiment)) as records,
  ):
    taken = steps(records, Path(workdir))
    collections.deque(itertools.islice(taken, every), maxlen=0)  # to the first save
    before = peak_bytes()
    periods = [Period(itertools.islice(taken, every)) for _ in range(rounds)]
  return {'parameters': parameters, **summary(periods), 'bytes_before': before, 'peak_bytes': peak_bytes()}


class Period:
  """Seconds of the steps from one save to the next; the first includes the save."""

  def __init__(self, steps: Iterable[Step]):
    first, *later = steps
    self.during = [first.seconds, *(step.seconds for step in later if step.writing)]
    self.others = [step.seconds for step in later if not step.writing]

  def costs(self, pace: float) -> dict[str, float]:
    """Seconds of the period, and of its save if other steps take `pace` seconds."""
    return {
      'period_seconds': sum(self.during) + sum(self.others),
      'stall_seconds': self.during[0] - pace,
      'write_seconds': sum(self.during),
      'lost_seconds': sum(self.during) - len(self.during) * pace,
    }


def summary(periods: Sequence[Period]) -> dict[str, float]:
  """Mean of unaffected steps, and medians of the costs. Raises ConfigError if saves affect all steps."""
  others = [seconds for period in periods for seconds in period.others]
  if not others:
    raise ConfigError('--seconds: a save takes longer; give more')
  pace = statistics.fmean(others)
  costs = [period.costs(pace) for period in periods]
  return {'step_seconds': pace, **{name: statistics.median(cost[name] for cost in costs) for name in costs[0]}}


def perceptron(parameters: int) -> Experiment:
  """Trains an MLP with about that many parameters, on noise."""
  width, rng = math.isqrt(parameters // LAYERS), np.random.default_rng(0)
  inputs = rng.normal(size=(BATCH, width)).astype(np.float32)
  examples = Arrays({'inputs': inputs, 'targets': rng.integers(CLASSES, size=BATCH)})
  model = MLP((width,) * LAYERS, CLASSES)
  return Experiment(supervised(model, softmax_cross_entropy(), optax.adam(1e-4)), Source(examples, BATCH))


def steps(records: Iterator[Record], workdir: Path = Path()) -> Iterator[Step]:
  """The steps of a run that logs each one."""
  unfinished, begin = workdir / 'checkpoints' / UNFINISHED, time.perf_counter()
  for record in records:
    if record.metrics:
      now = time.perf_counter()
      yield Step(now - begin, unfinished.exists())
      begin = now


def table(rows: Sequence[Row]) -> str:
  """Costs of saves, one per row."""
  heading = (
    'parameters',
    'step, ms',
    'steps wait, s',
    'written in, s',
    'costs in all, s',
    'of the time',
    'GB without',
    'with',
  )
  return grid([heading, *map(_cells, rows)])


def _cells(row: Row) -> tuple[str, ...]:
  seconds = (f'{row[name]:.2f}' for name in ('stall_seconds', 'write_seconds', 'lost_seconds'))
  share = f'{row["lost_seconds"] / row["period_seconds"]:.1%} of {row["period_seconds"]:.0f} s'
  memory = (f'{row[name] / 1e9:.2f}' for name in ('bytes_before', 'peak_bytes'))
  return f'{row["parameters"] / 1e6:g} M', f'{1e3 * row["step_seconds"]:.0f}', *seconds, share, *memory


if __name__ == '__main__':
  flags.DEFINE_integer('parameters', 100_000_000, 'approximate number of parameters', lower_bound=100)
  flags.DEFINE_integer('rounds', 3, 'number of saves', lower_bound=1)
  flags.DEFINE_float('seconds', 60.0, 'approximate time between saves', lower_bound=0.01)
  define_record_flag()
  app.run(main)
