"""Submits `launch.train` to a SLURM cluster: one task for each GPU, or for each node where none is asked for.

python -m launch.slurm --nodes=2 --gpus_per_node=8 --partition=gpu --time=24:00:00 --requeue \\
  --config=cnn_mnist --workdir=/shared/runs/mnist --config.batch_size=1024

Flags that are not told here are those of launch.train, which gets them as they are.
"""

import sys
from collections.abc import Sequence
from typing import Any

from absl import flags

from launch import app, train
from launch.cluster import OWN, REQUEUE, TrainJob, executor


def main() -> None:
  train.CONFIG.value.validate()  # now, and not after hours in the queue
  (job,) = submit([_of_train(sys.argv)], executor())
  print(f'job {job.job_id}: logs are {job.paths.stdout} and {job.paths.stderr}')


def submit(commands: Sequence[Sequence[str]], to: Any) -> list[Any]:
  """Submits command lines of launch.train, the words after its name, to an `executor()`; several are an array.

  Returns submitit's jobs, in their order.
  """
  from submitit.helpers import clean_env

  with clean_env(), to.batch():  # clean, or a job would take itself for a part of the one it is submitted from
    return [to.submit(TrainJob(words, REQUEUE.value)) for words in commands]


def _of_train(argv: Sequence[str]) -> list[str]:
  """The words of the command line that are not flags of this file."""
  own = flags.FlagValues()
  for holder in OWN:
    own[holder.name] = flags.FLAGS[holder.name]
  own.set_gnu_getopt()  # `--config FILE`, in two words, is not the end of the flags
  return own(argv, known_only=True)[1:]


if __name__ == '__main__':
  app.run(main)
