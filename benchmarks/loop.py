"""Overhead of the training loop: every recorded experiment compared with a bare jitted loop over the same step.

python -m benchmarks.loop
python -m benchmarks.loop --config=mlp_mnist --config.batch_size=64

The loop logs, saves and shows a progress bar as `launch.train` does, as often as the experiment says. It does not
evaluate, which is separate work. The two take turns in one process; times and ratios are medians over turns.
"""

import contextlib
import dataclasses
import functools
import io
import itertools
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence

import jax
from absl import flags

from benchmarks.record import Row, define_record_flag, publish
from launch import app
from launch.flags import define_config, load_config, parse
from launch.progress import Progress
from research import random
from research.data.feed import Feed, make_feed
from research.errors import ConfigError, DataError
from research.parallel.mesh import make_mesh
from research.report.results import recorded
from research.report.tables import grid
from research.tasks.base import Task
from research.train.config import Config
from research.train.experiment import checked
from research.train.loop import train
from research.train.run import HASHED_STEPS, Record

CONFIG = define_config()
RATIO, EXTRA = 1.03, 50e-6  # targets, either of which is enough: ratio of times, or extra seconds per step


def main() -> None:
  rounds, seconds = flags.FLAGS.rounds, flags.FLAGS.seconds
  if CONFIG.value and flags.FLAGS.record:
    raise ConfigError('--record: is of all experiments that have runs on record; leave --config out')
  if CONFIG.value:
    rows = [measure(flags.FLAGS['config'].file, CONFIG.value, rounds, seconds)]
  else:
    rows = list(all_recorded(rounds, seconds))
  publish('loop', rows, table)


def all_recorded(rounds: int, seconds: float) -> Iterator[Row]:
  """A row per recorded experiment whose data are available."""
  for folder in recorded():
    try:
      yield measure(folder.name, load_config(str(folder / 'config.py')), rounds, seconds)
    except DataError as error:
      print(f'{folder.name} is left out: {error}')
    jax.clear_caches()


def measure(name: str, config: Config, rounds: int, seconds: float) -> Row:
  """Step times of the training loop and the bare loop, in turns of about `seconds`."""
  config.validate()
  endless = without_end(config)
  experiment = checked(endless.build())
  mesh = make_mesh(config.mesh, config.batch_size, config.accumulate)
  with make_feed(experiment.train, mesh) as feed, tempfile.TemporaryDirectory() as workdir:
    bare = bare_loop(experiment.task, feed, config.seed)
    steps = steps_within(seconds, bare)
    endless.log_every = min(config.log_every, steps)  # every turn logs, even with long steps
    steps -= steps % endless.log_every
    with contextlib.closing(train(endless, workdir, experiment=experiment)) as records:
      loop = full_loop(records, endless.steps)
      loop(max(steps, HASHED_STEPS[-2] + 1))  # past the first steps, whose State is hashed
      turns = [(timed(loop, steps), timed(bare, steps)) for _ in range(rounds)]
  return {'experiment': name, 'steps': steps, **compared(turns, steps)}


def without_end(config: Config) -> Config:
  """The config without an end, final checkpoint and evaluations."""
  every = config.checkpoint_every if config.checkpoint_every < config.steps else 0
  return dataclasses.replace(config, steps=10**9, eval_every=0, checkpoint_every=every)


def bare_loop(task: Task, feed: Feed, seed: int) -> Callable[[int], None]:
  """Function that runs a number of steps and nothing else."""

  def step(state, inputs, key):
    batch = feed.batch(inputs, state.step)
    return task.train_step(state, batch, random.stream(key, 'train', state.step))

  step, key = jax.jit(step, donate_argnums=0), jax.random.key(seed)
  state = jax.jit(lambda inputs: task.init(key, feed.batch(inputs, 0)))(feed.inputs(0))
  numbers = itertools.count()

  def run(steps: int) -> None:
    nonlocal state
    for number in itertools.islice(numbers, steps):
      state, _ = step(state, feed.inputs(number), key)
    jax.block_until_ready(state)

  return run


def full_loop(records: Iterator[Record], total: int) -> Callable[[int], None]:
  """Function that runs the training loop for a number of steps, with a hidden progress bar."""
  progress, reached = Progress(total, stream=Terminal()), 0

  def run(steps: int) -> None:
    nonlocal reached
    reached += steps
    for record in records:
      progress.show(record)
      if record.metrics and record.step >= reached:
        break
    jax.block_until_ready(record.state)

  return run


class Terminal(io.StringIO):
  """A fake terminal."""

  def isatty(self) -> bool:
    return True


def steps_within(seconds: float, run: Callable[[int], None]) -> int:
  """Number of steps that `run` takes in about that time, at least one."""
  run(2)  # both compile, as the first step changes the State's layout
  steps = 1
  while (taken := timed(run, steps)) < seconds / 4:
    steps *= 2
  return max(1, round(steps * seconds / taken))


def timed(run: Callable[[int], None], steps: int) -> float:
  """Seconds for a number of steps."""
  start = time.perf_counter()
  run(steps)
  return time.perf_counter() - start


def compared(turns: Sequence[tuple[float, float]], steps: int) -> Row:
  """Medians over turns of (loop, bare loop) seconds, and the range of ratios."""
  ratios = [loop / bare for loop, bare in turns]
  loop, bare = (statistics.median(seconds) / steps for seconds in zip(*turns, strict=True))
  extra = statistics.median((loop - bare) / steps for loop, bare in turns)
  median = statistics.median(ratios)
  return {
    'loop_seconds': loop,
    'bare_seconds': bare,
    'extra_seconds': extra,
    'ratio': median,
    'spread': [min(ratios), max(ratios)],
    'met': median <= RATIO or extra <= EXTRA,
  }


def table(rows: Sequence[Row]) -> str:
  """A row per experiment."""
  heading = ('experiment', 'bare loop, ms a step', 'ratio', 'from', 'to', 'microseconds more a step', 'target met')
  return grid([heading, *map(_cells, rows)])


def _cells(row: Row) -> tuple[str, ...]:
  ratios = (f'{ratio:.3f}' for ratio in (row['ratio'], *row['spread']))
  extra, met = f'{1e6 * row["extra_seconds"]:.0f}', 'yes' if row['met'] else 'no'
  return row['experiment'], f'{1e3 * row["bare_seconds"]:.3f}', *ratios, extra, met


if __name__ == '__main__':
  flags.DEFINE_integer('rounds', 5, 'turns of each loop', lower_bound=1)
  flags.DEFINE_float('seconds', 2.0, 'approximate duration of a turn', lower_bound=0.1)
  define_record_flag()
  app.run(main, functools.partial(parse, optional=True))
