"""Trains an experiment, or resumes it from its workdir.

python -m launch.train --config=cnn_digits --workdir=runs/digits --config.optimizer.lr=3e-3
"""

import collections

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

CONFIG = define_config()
WORKDIR = flags.DEFINE(
  PathParser(), 'workdir', None, 'folder of the run: metrics, checkpoints, figures, result', required=True
)


def main() -> None:
  config, workdir = CONFIG.value, WORKDIR.value
  if package := cpu.idle_accelerator():
    logging.warning(f'{package} is installed, but JAX found no such device and runs on CPU')
  with Stop(alone=jax.process_count() == 1) as stop:
    records = train(config, workdir, stop)
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
