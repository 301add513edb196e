"""A process killed at random instants, and started again until it is done, ends as one that was left alone.

STRATA_KILLS multiplies the number of kills; their seed is printed when a test fails.
"""

import json
import os
import random
import signal
import subprocess
import time
from pathlib import Path

import pytest

from research.train import recorder

KILLS = 2 * int(os.environ.get('STRATA_KILLS', '1'))
STEPS = '--config.steps=100'  # with a checkpoint every five: most of the time is spent in saving
TIMING = ('seconds', 'examples_per_second')


def outcome(workdir: Path) -> tuple:
  lines = [{name: value for name, value in line.items() if name not in TIMING} for line in recorder.read(workdir)]
  result = json.loads((workdir / 'result.json').read_text())
  return lines, {name: value for name, value in result.items() if name not in TIMING}


def wait_for_start(process: subprocess.Popen, workdir: Path) -> None:
  """Until the process has noted its start, just before it looks for the newest checkpoint."""
  path = workdir / 'environment.json'
  before = path.stat().st_size if path.exists() else 0
  while process.poll() is None and not (path.exists() and path.stat().st_size > before):
    time.sleep(0.005)


def finish(process: subprocess.Popen) -> None:
  _, errors = process.communicate(timeout=300)
  assert process.returncode == 0, errors


@pytest.mark.parametrize('config', ['classifier', 'regularized', 'ring'])
def test_killed_at_random_instants(config, start, tmp_path):
  alone, killed = tmp_path / 'alone', tmp_path / 'killed'
  process = start(config, alone, STEPS)
  wait_for_start(process, alone)
  began = time.monotonic()
  finish(process)
  lasts = time.monotonic() - began

  seed = int.from_bytes(os.urandom(4))
  print(f'instants of the kills: seed {seed}, within {lasts:.2f} s')
  instants = random.Random(seed)
  for _ in range(KILLS):
    process = start(config, killed, STEPS)
    wait_for_start(process, killed)
    time.sleep(instants.uniform(0, lasts / KILLS + 1))
    process.send_signal(signal.SIGKILL)
    process.communicate()
  finish(start(config, killed, STEPS))
  assert outcome(killed) == outcome(alone)
