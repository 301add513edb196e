"""Where the trials of a sweep run: in local processes, or as an array of jobs on a cluster."""

import os
import queue
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from absl import logging

from launch.jobs import POLL_SECONDS, Job, run_job
from research.train.signals import Stop


def run_local(jobs: Sequence[Job], processes: int, stop: Stop) -> list[int | None]:
  """Exit codes of the jobs, of which `processes` run at once; None for those that a signal kept from starting."""
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
  """The same by an executor of submitit, as one array of jobs; a signal cancels them, which lets them save."""
  array = executor.map_array(run_alone, jobs)
  while not (stop.signum or all(job.done() for job in array)):
    time.sleep(POLL_SECONDS)
  if stop.signum:
    for job in array:
      job.cancel()
  return [_code(job) if job.done() else None for job in array]


def run_alone(job: Job) -> int | None:
  """`run_job` in a process of its own, as on a node of a cluster."""
  with Stop() as stop:
    return run_job(job, stop)


def device_shares(devices: str, processes: int) -> list[dict[str, str]]:
  """Environment of each process: its part of the devices that CUDA_VISIBLE_DEVICES lists, if it lists any."""
  names = devices.split(',')
  parts = [names[number::processes] or [names[number % len(names)]] for number in range(processes)]
  return [{'CUDA_VISIBLE_DEVICES': ','.join(part)} if devices else {} for part in parts]


def _code(job: Any) -> int | None:
  """Exit code of a job of submitit; 1 where its node or its process was lost."""
  try:
    return job.result()
  except Exception as error:  # submitit has several kinds, and brings those of the job along
    logging.warning('job %s: %s', job.job_id, ' '.join(str(error).split()))
    return 1
