"""Two ways to take a number of training steps, for the benchmark: by hand, and by the training loop."""

import io
import itertools
import time
from collections.abc import Callable, Iterator

import jax

from launch.progress import Progress
from research import random
from research.data.feed import Feed
from research.tasks.base import Task
from research.train.run import Record


class Terminal(io.StringIO):
  """A terminal that nobody looks at."""

  def isatty(self) -> bool:
    return True


def bare_loop(task: Task, feed: Feed, seed: int) -> Callable[[int], None]:
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
  """Function that lets the training loop log its way through a number of steps, and shows it to nobody, by a bar."""
  progress, reached = Progress(total, Terminal()), 0

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
