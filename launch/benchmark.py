"""What the loop costs: training with logs, checkpoints and a progress bar beside a bare loop over the same step.

python -m launch.benchmark --config=experiments/mlp_mnist/config.py
python -m launch.benchmark --peer=torch

The two take turns within one process. Printed are examples per second, and the ratio of the times, turn by turn.
With --peer it is our recurrent layers beside those of another library; see `launch.benchmark_peer`.
"""

import contextlib
import dataclasses
import functools
import statistics
import tempfile

from absl import flags

from launch import app
from launch.benchmark_peer import compare
from launch.flags import define_config, parse
from launch.turns import bare_loop, full_loop, timed
from research.data.feed import make_feed
from research.train.config import Config
from research.train.experiment import checked
from research.train.loop import train
from research.train.mesh import make_mesh

CONFIG = define_config()
ROUNDS = flags.DEFINE_integer('rounds', 12, 'turns of each', lower_bound=2)
PEER = flags.DEFINE_enum('peer', '', ['', 'torch'], 'library to compare recurrent layers with, in place of --config')
SECONDS = flags.DEFINE_float('seconds', 3.0, 'about how long a turn takes', lower_bound=0.1)


def main() -> None:
  print(compare(ROUNDS.value) if PEER.value else beside_a_bare_loop(CONFIG.value))


def beside_a_bare_loop(config: Config) -> str:
  """What training by the loop takes, and by hand."""
  config.validate()
  # No evaluation: it is work of its own, which a bare loop would do as well.
  endless = dataclasses.replace(config, steps=10**9, evaluate_every=0)
  experiment = checked(endless.build())
  mesh = make_mesh(config.mesh, config.batch_size, config.accumulate)
  with (
    make_feed(experiment.train, mesh) as feed,
    tempfile.TemporaryDirectory() as workdir,
    contextlib.closing(train(experiment, endless, workdir)) as records,
  ):
    bare = bare_loop(experiment.task, feed, config.seed)
    bare(config.log_every)
    steps = config.log_every * max(1, round(SECONDS.value / timed(lambda: bare(config.log_every))))
    loop = full_loop(records, endless.steps)
    loop(steps)
    turns = [(timed(lambda: loop(steps)), timed(lambda: bare(steps))) for _ in range(ROUNDS.value)]
  return report(turns, steps, config.batch_size)


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
  app.run(main, functools.partial(parse, unless='peer'))
