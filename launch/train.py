"""Trains an experiment, or resumes it from its workdir.

python -m launch.train --config=cnn_digits --workdir=runs/digits --config.optimizer.lr=3e-3
"""

import collections
import re

import jax
from absl import flags, logging

from launch import app, cpu, distributed
from launch.flags import PathParser, define_config
from launch.progress import Progress, final_table, target_metric
from research.errors import NotFiniteError
from research.parallel.processes import is_first
from research.report.curves import draw_curves
from research.train.loop import train
from research.train.run import Interrupted
from research.train.signals import Stop


class ProfileParser(flags.ArgumentParser):
  """Parses STEP:COUNT."""

  def parse(self, argument: str) -> tuple[int, int]:
    if not re.fullmatch(r'[1-9]\d*:[1-9]\d*', argument):
      raise ValueError('must be STEP:COUNT, such as 100:5: the first step to trace, and how many')
    return tuple(map(int, argument.split(':')))


CONFIG = define_config()
WORKDIR = flags.DEFINE(
  PathParser(), 'workdir', None, 'folder of the run: metrics, checkpoints, figures, result', required=True
)
PROFILE = flags.DEFINE(
  ProfileParser(), 'profile', None, "STEP:COUNT of the steps that jax.profiler traces into the workdir's profile/"
)
DEBUG_NANS = flags.DEFINE_bool(
  'debug_nans', False, 'check every step, and name the operation and the module that make the first NaN or infinity'
)


def main() -> None:
  config, workdir = CONFIG.value, WORKDIR.value
  if package := cpu.idle_accelerator():
    logging.warning(f'{package} is installed, but JAX found no such device and uses the CPU')
  debugging = jax.debug_nans(DEBUG_NANS.value or jax.config.jax_debug_nans)
  with debugging, Stop(alone=jax.process_count() == 1) as stop:
    records = train(config, workdir, stop, profile=PROFILE.value or (0, 0))
    if not is_first():  # only the first process reports
      collections.deque(records, maxlen=0)
      return
    try:
      with Progress(config.steps, target_metric(config)) as progress:
        for record in records:
          progress.show(record)
    except Exception as error:
      if isinstance(error, (Interrupted, NotFiniteError)) or hasattr(error, 'told'):
        draw_curves(workdir)
      raise
  draw_curves(workdir)
  print(final_table(record.metrics))
  print(*sorted((workdir / 'figures').glob('*.png')), sep='\n')


if __name__ == '__main__':
  app.run(distributed.together(main))
