"""A process killed at random instants, and started again until it is done, ends as one that was left alone.

STRATA_KILLS is the number of kills, over all the experiments (`make faults`: 100); their seed is printed when a test
fails.
"""

import os
import random
import signal
import time

import pytest
from runs import end, outcome, wait_for_start

CONFIGS = ('classifier', 'regularized', 'ring')
KILLS = int(os.environ.get('STRATA_KILLS', '3'))
MOST = 3  # of one run
# With a checkpoint every five steps and two evaluations: most of the time is spent in saving.
STEPS = ('--config.steps=100', '--config.eval_every=50')


@pytest.mark.parametrize('number', range(len(CONFIGS)), ids=CONFIGS)
def test_killed_at_random_instants(number, start, tmp_path, fault, record_property):
  config, wanted = CONFIGS[number], (KILLS + number) // len(CONFIGS)
  process = start(config, tmp_path / 'alone', *STEPS)
  wait_for_start(process, tmp_path / 'alone')
  began = time.monotonic()
  assert end(process)[1] == 0
  lasts = time.monotonic() - began

  seed = int.from_bytes(os.urandom(4))
  print(f'instants of the kills: seed {seed}, within {lasts:.2f} s')
  instants = random.Random(seed)
  kills, in_a_save, runs = 0, 0, 0
  while kills < wanted:
    workdir, runs = tmp_path / f'run{runs}', runs + 1
    process = start(config, workdir, *STEPS)
    for _ in range(min(MOST, wanted - kills)):
      wait_for_start(process, workdir)
      time.sleep(after := instants.uniform(0, lasts))
      process.send_signal(signal.SIGKILL)
      if (code := end(process)[1]) != 137:  # it was done before
        lasts = after
        break
      kills, in_a_save = kills + 1, in_a_save + (workdir / 'checkpoints' / 'unfinished').exists()
      process = start(config, workdir, *STEPS)
    assert process.wait(300) == 0 and outcome(workdir) == outcome(tmp_path / 'alone')
  record_property('summary', f'{config}: {kills} kills, {in_a_save} in a save; {runs} runs, all with the same bits')
  fault('killed at any instant', '', code, 'all; the same end')
