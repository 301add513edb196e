"""Runs the trials of a sweep, each with `launch.train`: in local processes, or as an array of jobs."""

import os
import queue
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from absl import logging

from research.errors import WorkdirError
from research.paths import ROOT
from research.train.rerun import finished
from research.train.signals import Stop
from research.train.workdir import in_use

POLL_SECONDS = 0.1


class Job(NamedTuple):
  """A trial as a command line."""

  name: str
  workdir: Path
  words: Sequence[str]  # flags of launch.train, except --workdir

  @property
  def log(self) -> Path:
    """The log file, next to the workdir."""
    return self.workdir.parent / 'logs' / f'{self.name}.log'


def run_local(jobs: Sequence[Job], processes: int, stop: Stop) -> list[int | None]:
  """Exit codes of the jobs, `processes` at a time; None for those that a signal kept from starting."""
  shares = queue.SimpleQueue()
  for share in device_shares(os.environ.get('CUDA_VISIBLE_DEVICES', ''), processes):
    shares.put(share)

  def run(job: Job) -> int | None:
    share = shares.get()
    try:
      return run_job(job, stop, share)
    finally:
      shares.put(share)

  with ThreadPoolExecutor(processes) as pool:
    return list(pool.map(run, jobs))


def run_array(jobs: Sequence[Job], executor: Any, stop: Stop) -> list[int | None]:
  """The same with a submitit executor, as one job array; a signal cancels the jobs, which lets them save."""
  array = executor.map_array(run_alone, jobs)
  while not (stop.signum or all(job.done() for job in array)):
    time.sleep(POLL_SECONDS)
  if stop.signum:
    for job in array:
      job.cancel()
  return [_code(job) if job.done() else None for job in array]


def run_alone(job: Job) -> int | None:
  """`run_job` in a separate process, as on a cluster node."""
  with Stop() as stop:
    return run_job(job, stop)


def device_shares(devices: str, processes: int) -> list[dict[str, str]]:
  """Environment of each process: its share of the devices in CUDA_VISIBLE_DEVICES, if set."""
  names = devices.split(',')
  parts = [names[number::processes] or [names[number % len(names)]] for number in range(processes)]
  return [{'CUDA_VISIBLE_DEVICES': ','.join(part)} if devices else {} for part in parts]


def run_job(job: Job, stop: Stop, environment: Mapping[str, str] | None = None) -> int | None:
  """Exit code of a trial, 0 without running if it is finished; None if a signal came before it started.

  Waits for a process that a killed sweep may have left running the trial.
  """
  while not stop.signum:
    if in_use(job.workdir):
      time.sleep(POLL_SECONDS)
    elif finished(job.workdir):
      return 0
    else:
      code = _run(job, stop, environment or {})
      if code != WorkdirError.exit_code or not in_use(job.workdir):  # otherwise such a process was faster
        return code
  return None


def _code(job: Any) -> int | None:
  """Exit code of a submitit job; 1 if its node or process was lost."""
  try:
    return job.result()
  except Exception as error:  # submitit raises several kinds, including the job's own
    logging.warning('job %s: %s', job.job_id, ' '.join(str(error).split()))
    return 1


def _run(job: Job, stop: Stop, environment: Mapping[str, str]) -> int:
  command = [sys.executable, str(ROOT / 'launch' / 'train.py'), *job.words, f'--workdir={job.workdir}']
  job.log.parent.mkdir(exist_ok=True)
  logging.info('%s: running', job.name)
  with job.log.open('a') as log:
    # In a new session: otherwise Ctrl-C would reach it twice, once through us, and kill it.
    process = subprocess.Popen(
      command, env={**os.environ, **environment}, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
    )
    code = _wait(process, stop)
  logging.info('%s: %s', job.name, f'exit {code}: {_last_line(job.log)}' if code else 'done')
  return code


def _wait(process: subprocess.Popen, stop: Stop) -> int:
  """Waits for the exit code, forwarding a signal to the sweep once; 128 + N if signal N killed it."""
  told = False
  while process.poll() is None:
    if stop.signum and not told:
      process.send_signal(stop.signum)
      told = True
    time.sleep(POLL_SECONDS)
  return process.returncode if process.returncode >= 0 else 128 - process.returncode


def _last_line(log: Path) -> str:
  """The last line of a log, which says what went wrong."""
  return ''.join(log.read_text(errors='replace').splitlines()[-1:])
