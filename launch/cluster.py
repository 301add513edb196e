"""Cluster jobs: their resources, and `launch.train` as a job that resumes when requeued."""

import re
import signal
import sys
from collections.abc import Sequence
from typing import Any

from absl import flags

from launch.flags import PathParser
from research.errors import ConfigError

CLUSTER = flags.DEFINE_enum('cluster', 'slurm', ['slurm', 'local'], 'slurm, or local: one task on this machine')
NODES = flags.DEFINE_integer('nodes', 1, 'number of machines', 1)
GPUS = flags.DEFINE_integer('gpus_per_node', 0, 'GPUs of each machine; 0: CPU only', 0)
CPUS = flags.DEFINE_integer('cpus_per_task', 0, "CPU cores per task; 0: the cluster's default", 0)
PARTITION = flags.DEFINE_string('partition', '', 'of the cluster; empty: its default')
TIME = flags.DEFINE_string('time', '24:00:00', 'time limit: minutes, HH:MM:SS or DAYS-HH:MM:SS')
REQUEUE = flags.DEFINE_bool('requeue', False, 'when preempted or out of time, save and requeue')
SBATCH = flags.DEFINE_list('sbatch', [], 'more sbatch options, such as account=vision,mem=64G')
LOGS = flags.DEFINE(PathParser(), 'logs', 'runs/jobs', 'folder for the logs, visible to all nodes')
OWN = (CLUSTER, NODES, GPUS, CPUS, PARTITION, TIME, REQUEUE, SBATCH, LOGS)

WARNING_SECONDS = 120  # from the signal to the time limit: enough for a step and a checkpoint
TURNS = 1_000  # maximal number of requeues after a time limit


def executor(whole: bool = False) -> Any:
  """A submitit executor with the resources given by flags.

  whole: a job is one task with all GPUs of its machine, instead of one task per GPU.
  Raises ConfigError for an unavailable cluster, and for several machines with `whole`.
  """
  if whole and NODES.value > 1:
    raise ConfigError(f'--nodes={NODES.value}: each job of this command is one process; set it to 1')
  try:
    import submitit
  except ImportError as error:
    raise ConfigError("a cluster needs submitit: pip install -e '.[cluster]'") from error
  turns = TURNS if REQUEUE.value else 0
  try:
    found = submitit.AutoExecutor(LOGS.value, cluster=CLUSTER.value, **{f'{CLUSTER.value}_max_num_timeout': turns})
    found.update_parameters(**_resources(whole))
  except (RuntimeError, ValueError) as error:
    raise ConfigError(f'--cluster={CLUSTER.value}: {" ".join(str(error).split())}') from error
  return found


class TrainJob:
  """Called by submitit in every task: runs `launch.train` with the command line `words`."""

  def __init__(self, words: Sequence[str], requeue: bool):
    self.words, self.requeue = list(words), requeue
    self._preempted = False

  def __call__(self) -> None:
    """Trains, and requeues the job if it was preempted; raises SystemExit with the exit code of an error."""
    start_again = signal.getsignal(signal.SIGUSR2)  # submitit's handler, which requeues
    signal.signal(signal.SIGTERM, _end)
    signal.signal(signal.SIGUSR2, self._make_room)
    from launch import app, distributed, train  # whose flags a submitting command should not define

    sys.argv = ['launch.train', *self.words]
    try:
      app.run(distributed.together(train.main))
    except SystemExit as ended:
      if self._preempted and self.requeue and ended.code == 128 + signal.SIGTERM:
        start_again(signal.SIGUSR2, None)
      if ended.code:
        raise

  def checkpoint(self) -> object:
    """What submitit runs after a requeue: the same, as everything else is in the workdir."""
    from submitit.helpers import DelayedSubmission

    return DelayedSubmission(TrainJob(self.words, self.requeue))

  def _make_room(self, signum: int, frame) -> None:
    """Treats SIGUSR2 like SIGTERM, with which it often comes, without counting as a second signal."""
    self._preempted = True
    signal.getsignal(signal.SIGTERM)(signal.SIGTERM, frame)


def minutes(text: str) -> int:
  """Minutes of a time in SLURM's format."""
  match = re.fullmatch(r'(?:(\d+)-)?(\d+):(\d\d):(\d\d)|(\d+)', text)
  if not match:
    raise ConfigError(f'--time={text}: must be minutes, HH:MM:SS or DAYS-HH:MM:SS')
  days, hours, rest, seconds, whole = (int(part or 0) for part in match.groups())
  return whole or max(1, (days * 24 + hours) * 60 + rest + (seconds > 0))


def _resources(whole: bool) -> dict[str, Any]:
  single = whole or CLUSTER.value != 'slurm'  # elsewhere tasks would not find each other
  tasks = 1 if single else max(1, GPUS.value)
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


def _end(signum: int, frame) -> None:
  """Handles SIGTERM outside of the loop, where there is nothing to save."""
  raise SystemExit(128 + signum)
