"""Submits `launch.train` to a SLURM cluster: one task for each GPU, or for each node where none is asked for.

python -m launch.slurm --nodes=2 --gpus_per_node=8 --partition=gpu --time=24:00:00 --requeue \\
  --config=experiments/cnn_mnist/config.py --workdir=/shared/runs/mnist --config.batch_size=1024

Flags that are not told here are those of launch.train, which gets them as they are.
"""

import re
import sys
from collections.abc import Sequence
from typing import Any

from absl import flags

from launch import app, train
from launch.job import Job
from research.errors import ConfigError

CLUSTER = flags.DEFINE_enum('cluster', 'slurm', ['slurm', 'local'], 'local: a task on this machine, by the same way')
NODES = flags.DEFINE_integer('nodes', 1, 'machines', 1)
GPUS = flags.DEFINE_integer('gpus_per_node', 0, 'tasks on each machine too; 0: one task, on CPU', 0)
CPUS = flags.DEFINE_integer('cpus_per_task', 0, 'cores of a task; 0: what the cluster gives', 0)
PARTITION = flags.DEFINE_string('partition', '', "the cluster's; empty: its default")
TIME = flags.DEFINE_string('time', '24:00:00', 'longest time of a turn: minutes, HH:MM:SS or DAYS-HH:MM:SS')
REQUEUE = flags.DEFINE_bool('requeue', False, 'when preempted or out of time, save and queue again')
SBATCH = flags.DEFINE_list('sbatch', [], 'more options of sbatch, such as account=vision,mem=64G')
LOGS = flags.DEFINE_string('logs', 'runs/jobs', 'folder of the logs; all nodes must see it')
OWN = (CLUSTER, NODES, GPUS, CPUS, PARTITION, TIME, REQUEUE, SBATCH, LOGS)

WARNING_SECONDS = 120  # from the signal to the end of a turn: a step, and a checkpoint
TURNS = 1_000  # at most, of a job that runs out of time


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
    return [to.submit(Job(words, REQUEUE.value)) for words in commands]


def executor() -> Any:
  """submitit's executor with the resources that the flags ask for. Raises ConfigError where there is none."""
  try:
    import submitit
  except ImportError as error:
    raise ConfigError("launch.slurm needs submitit: pip install -e '.[cluster]'") from error
  turns = TURNS if REQUEUE.value else 0
  try:
    found = submitit.AutoExecutor(LOGS.value, cluster=CLUSTER.value, **{f'{CLUSTER.value}_max_num_timeout': turns})
    found.update_parameters(**_resources())
  except (RuntimeError, ValueError) as error:
    raise ConfigError(f'--cluster={CLUSTER.value}: {" ".join(str(error).split())}') from error
  return found


def minutes(text: str) -> int:
  """Whole minutes of a time as SLURM writes it."""
  match = re.fullmatch(r'(?:(\d+)-)?(\d+):(\d\d):(\d\d)|(\d+)', text)
  if not match:
    raise ConfigError(f'--time={text}: must be minutes, HH:MM:SS or DAYS-HH:MM:SS')
  days, hours, rest, seconds, whole = (int(part or 0) for part in match.groups())
  return whole or max(1, (days * 24 + hours) * 60 + rest + (seconds > 0))


def _resources() -> dict[str, Any]:
  tasks = max(1, GPUS.value) if CLUSTER.value == 'slurm' else 1  # elsewhere they would not know of each other
  more = {name: value or True for name, _, value in (option.partition('=') for option in SBATCH.value)}
  wanted = {
    'name': 'strata',
    'nodes': NODES.value,
    'tasks_per_node': tasks,
    'gpus_per_node': GPUS.value,
    'cpus_per_task': CPUS.value,
    'timeout_min': minutes(TIME.value),
    'slurm_partition': PARTITION.value,
    'slurm_signal_delay_s': WARNING_SECONDS,
    'slurm_additional_parameters': {'requeue' if REQUEUE.value else 'no-requeue': True, **more},
  }
  return {name: value for name, value in wanted.items() if value}


def _of_train(argv: Sequence[str]) -> list[str]:
  """The words of the command line that are not flags of this file."""
  own = flags.FlagValues()
  for holder in OWN:
    own[holder.name] = flags.FLAGS[holder.name]
  return own(argv, known_only=True)[1:]


if __name__ == '__main__':
  app.run(main)
