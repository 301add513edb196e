"""Submits `launch.train` to a SLURM cluster: one task per GPU, or per node without GPUs.

python -m launch.slurm --nodes=2 --gpus_per_node=8 --partition=gpu --time=24:00:00 --requeue \\
  --config=cnn_mnist --workdir=/shared/runs/mnist --config.batch_size=1024

Other flags are passed on to launch.train.
"""

import sys
from collections.abc import Sequence
from typing import Any

from absl import flags

from launch import app, train
from launch.cluster import OWN, REQUEUE, TrainJob, executor


def main() -> None:
  train.CONFIG.value.validate()  # fail now, not after hours in the queue
  (job,) = submit([_of_train(sys.argv)], executor())
  print(f'job {job.job_id}: logs are {job.paths.stdout} and {job.paths.stderr}')


def submit(commands: Sequence[Sequence[str]], to: Any) -> list[Any]:
  """Submits command lines of launch.train (without its name) to an `executor()`, several as an array.

  Returns submitit's jobs, in order.
  """
  from submitit.helpers import clean_env

  with clean_env(), to.batch():  # clean, or a job would consider itself part of the submitting one
    return [to.submit(TrainJob(words, REQUEUE.value)) for words in commands]


def _of_train(argv: Sequence[str]) -> list[str]:
  """The words of the command line that are not flags of this command."""
  own = flags.FlagValues()
  for holder in OWN:
    own[holder.name] = flags.FLAGS[holder.name]
  own.set_gnu_getopt()  # `--config FILE` in two words does not end the flags
  return own(argv, known_only=True)[1:]


if __name__ == '__main__':
  app.run(main)
