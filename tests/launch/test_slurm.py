"""Jobs of a cluster: what is asked of SLURM, and turns that end before the run does, on this machine."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import jax
import pytest
import submitit
from absl import flags
from absl.testing import flagsaver
from runs import outcome

from launch import slurm
from launch.cluster import OWN, executor, minutes
from research.errors import ConfigError

ROOT = Path(__file__).parents[2]
CONFIG = f'--config={ROOT}/tests/configs/classifier.py'


def words(workdir: Path, *more: str) -> list[str]:
  return [CONFIG, f'--workdir={workdir}', f'--compilation_cache={jax.config.jax_compilation_cache_dir}-launched', *more]


@pytest.fixture
def local(tmp_path, monkeypatch, on_one_device):
  """submitit's executor on this machine, as the flags make it."""
  for name in ('XLA_FLAGS', 'PYTHONPATH'):
    monkeypatch.setenv(name, on_one_device[name])
  with flagsaver.flagsaver(cluster='local', requeue=True, time='20', logs=str(tmp_path / 'jobs')):
    yield executor()


def make_room(job: submitit.Job, *signals: signal.Signals) -> None:
  """Signals a job's task as SLURM does, and waits until it has begun its next turn."""
  turns, controller = job.stdout().count('Starting with'), job._process.pid
  task = int(Path(f'/proc/{controller}/task/{controller}/children').read_text())
  for signum in signals:
    os.kill(task, signum)
  wait_for(job, lambda: job.stdout().count('Starting with') > turns)


def wait_for(job: submitit.Job, happened: Callable[[], bool]) -> None:
  while not happened():
    assert not job.done(), job.stderr()
    time.sleep(0.02)


def test_preempted_jobs_go_on_and_end_as_one_that_was_left_alone(local, tmp_path):
  """Of an array of two, one must make room twice: while it compiles, and in the middle of training."""
  alone, preempted = tmp_path / 'alone', tmp_path / 'preempted'
  steps = ('--config.steps=200', '--config.eval_every=100')
  left, job = slurm.submit([words(alone, *steps), words(preempted, *steps)], local)
  wait_for(job, lambda: 'compiling' in (job.stderr() or ''))
  make_room(job, signal.SIGUSR2)
  wait_for(job, lambda: 'training' in job.stderr().rpartition('stopped by SIGTERM')[2])
  make_room(job, signal.SIGTERM, signal.SIGUSR2)
  left.result(), job.result()
  assert job.stderr().count('stopped by SIGTERM') == 2
  assert outcome(preempted) == outcome(alone)


def test_a_faulty_run_ends_its_job_with_its_own_code(local, tmp_path):
  (tmp_path / 'mine').mkdir()
  (tmp_path / 'mine' / 'thesis.tex').write_text('mine')
  (job,) = slurm.submit([words(tmp_path / 'mine')], local)
  job.wait()
  assert 'error: workdir' in job.stderr().splitlines()[-1] and 'Traceback' not in job.stderr()


@pytest.fixture
def cluster(tmp_path, monkeypatch):
  """The folder to which programs that look like SLURM's are added, and copy what they are given."""
  monkeypatch.setenv('PATH', f'{tmp_path}:{os.environ["PATH"]}')
  for name, text in {'srun': '', 'sbatch': f'cp "$1" {tmp_path}/batch; echo Submitted batch job 12'}.items():
    (tmp_path / name).write_text(f'#!/bin/sh\n{text}\n')
    (tmp_path / name).chmod(0o755)
  return tmp_path


@pytest.fixture
def submit(programs):
  """Function (*flags) -> the process of `launch.slurm` that has ended."""
  return lambda *flags: programs.run(['-m', 'launch.slurm', *flags], os.environ)


def test_what_is_asked_of_the_cluster(cluster, submit):
  own = [
    '--nodes=2',
    '--gpus_per_node',
    '8',
    '--partition=big',
    '--time=1-02:00:00',
    '--requeue',
    '--sbatch=account=me',
  ]
  run = submit(*own, f'--logs={cluster}/jobs', *words(cluster / 'run', '--config.width=8', '--verbosity=1'))
  assert run.returncode == 0 and 'job 12' in run.stdout, run.stderr
  asked = (cluster / 'batch').read_text()
  for option in ('nodes=2', 'ntasks-per-node=8', 'gpus-per-node=8', 'partition=big', 'time=1560', 'account=me'):
    assert f'#SBATCH --{option}\n' in asked
  assert '#SBATCH --requeue\n' in asked and '#SBATCH --signal=USR2@' in asked and 'srun ' in asked
  (pickled,) = (cluster / 'jobs').glob('12_submitted.pkl')
  assert submitit.helpers.DelayedSubmission.load(pickled).function.words == words(
    cluster / 'run', '--config.width=8', '--verbosity=1'
  )


@pytest.mark.parametrize(
  ('wrong', 'told'),
  [
    (['--config.widht=8'], 'nearest: width'),
    (['--config.steps=0'], 'config.steps=0'),
    (['--time=soon'], '--time=soon'),
    (['--cluster=local', '--nodes=2'], '--cluster=local'),
  ],
)
def test_what_cannot_run_is_refused_before_it_waits(wrong, told, cluster, submit):
  run = submit(*words(cluster / 'run'), *wrong, f'--logs={cluster}/jobs')
  assert run.returncode == 2 and run.stderr.splitlines()[-1].startswith('error: ') and told in run.stderr
  assert not (cluster / 'batch').exists()


def test_there_may_be_no_cluster(tmp_path, submit, monkeypatch):
  monkeypatch.setenv('PATH', str(tmp_path))
  run = submit(*words(tmp_path / 'run'), f'--logs={tmp_path}/jobs')
  assert run.returncode == 2 and 'srun' in run.stderr.splitlines()[-1]


@pytest.mark.parametrize(('text', 'value'), [('90', 90), ('01:30:00', 90), ('0:00:01', 1), ('2-00:00:01', 2881)])
def test_times_are_slurms(text, value):
  assert minutes(text) == value


def test_times_that_are_none():
  with pytest.raises(ConfigError, match='--time=1:2'):
    minutes('1:2')


def test_own_flags_are_told_from_those_of_training():
  assert set(flags.FLAGS.flags_by_module_dict()['launch.cluster']) == {flags.FLAGS[holder.name] for holder in OWN}
