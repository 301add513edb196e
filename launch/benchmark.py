"""What the loop costs: training with logs, checkpoints and a progress bar beside a bare loop over the same step.

python -m launch.benchmark --config=experiments/mlp_mnist/config.py

The two take turns within one process. Printed are examples per second, and the ratio of the times, turn by turn.
"""

import dataclasses
import io
import itertools
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator

import jax
from absl import flags

from launch import app
from launch.flags import define_config
from launch.progress import Progress
from research import random
from research.data.feed import Feed, make_feed
from research.train.loop import train
from research.train.mesh import make_mesh
from research.train.run import Record

CONFIG = define_config()
ROUNDS = flags.DEFINE_integer('rounds', 12, 'turns of each', lower_bound=2)
SECONDS = flags.DEFINE_float('seconds', 3.0, 'about how long a turn takes', lower_bound=0.1)


def main() -> None:
  config = CONFIG.value
  config.validate()
  experiment = config.build()
  mesh = make_mesh(config.devices, config.batch_size)
  with make_feed(experiment.train, mesh) as feed, tempfile.TemporaryDirectory() as workdir:
    bare = bare_loop(experiment.task, feed, config.seed)
    bare(config.log_every)
    steps = config.log_every * max(1, round(SECONDS.value / timed(lambda: bare(config.log_every))))
    # No evaluation: it is work of its own, which a bare loop would do as well.
    endless = dataclasses.replace(config, steps=10**9, evaluate_every=0)
    loop = full_loop(train(experiment, endless, workdir), endless.steps)
    loop(steps)
    turns = [(timed(lambda: loop(steps)), timed(lambda: bare(steps))) for _ in range(ROUNDS.value)]
  print(report(turns, steps, config.batch_size))


def bare_loop(task, feed: Feed, seed: int) -> Callable[[int], None]:
  """Function that takes a number of steps and does nothing else."""

  def step(state, inputs, key):
    batch = feed.batch(inputs, state.step)
    return task.train_step(state, batch, random.stream(key, 'train', state.step))[0]

  step, key = jax.jit(step, donate_argnums=0), jax.random.key(seed)
  state = jax.jit(lambda inputs: task.init(key, feed.batch(inputs, 0)))(feed.inputs(0))
  numbers = itertools.count()

  def run(steps: int) -> None:
    nonlocal state
    for number in itertools.islice(numbers, steps):
      state = step(state, feed.inputs(number), key)
    jax.block_until_ready(state)

  return run


def full_loop(records: Iterator[Record], total: int) -> Callable[[int], None]:
  """Function that lets the training loop log its way through a number of steps, and shows it to nobody."""
  progress, reached = Progress(total, io.StringIO()), 0

  def run(steps: int) -> None:
    nonlocal reached
    reached += steps
    for record in records:
      progress.show(record)
      if record.metrics and record.step >= reached:
        break
    jax.block_until_ready(record.state)

  return run


def timed(run: Callable[[], None]) -> float:
  """Seconds that a call takes."""
  start = time.perf_counter()
  run()
  return time.perf_counter() - start


def report(turns: list[tuple[float, float]], steps: int, batch_size: int) -> str:
  """Medians over the turns of (loop's seconds, bare seconds), and how far the ratios spread."""
  ratios = [full / bare for full, bare in turns]
  extra = statistics.median((full - bare) / steps for full, bare in turns)
  speed, bare = (steps * batch_size / statistics.median(column) for column in zip(*turns, strict=True))
  return (
    f'loop {speed:,.0f} examples/s, bare {bare:,.0f} examples/s, {steps} steps a turn, {len(turns)} turns\n'
    f'ratio of times: median {statistics.median(ratios):.3f}, from {min(ratios):.3f} to {max(ratios):.3f}\n'
    f'a step: {1e6 * extra:.0f} microseconds more'
  )


if __name__ == '__main__':
  app.run(main)
