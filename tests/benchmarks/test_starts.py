"""The time of a start: when it is told, and what is left behind."""

import time

import pytest

from benchmarks import starts
from research.errors import RunError
from research.train.recorder import Recorder

PROGRAM = """#!/bin/sh
for word; do case $word in --workdir=*) workdir=${word#--workdir=};; esac; done
mkdir $workdir
%s
"""


@pytest.fixture
def program(tmp_path, monkeypatch):
  """Function that puts a shell script in the place of Python."""

  def replace(script):
    path = tmp_path / 'python'
    path.write_text(PROGRAM % script)
    path.chmod(0o700)
    monkeypatch.setattr(starts.sys, 'executable', str(path))

  return replace


def test_a_start_is_timed_to_its_first_step_and_then_ended(program, tmp_path):
  with Recorder(tmp_path, 0, 0) as recorder:
    for step in (0, 1):
      recorder.write(step, {'state_sha256': 'abc'})
  lines = tmp_path / 'metrics.jsonl'
  program(f'sleep .1; head -n 1 {lines} > $workdir/metrics.jsonl; sleep .2; cp {lines} $workdir; exec sleep 60')
  begin = time.perf_counter()
  times = starts.start('config.py')
  assert 0.1 <= times['first_state'] <= times['first_step'] - 0.15 and time.perf_counter() - begin < 30


def test_a_start_that_fails_is_told_with_its_messages(program):
  program('echo error: no such file >&2; exit 2')
  with pytest.raises(RunError, match='ended with 2 before step 0: error: no such file'):
    starts.start('config.py')


def test_medians_of_every_part():
  times = [{'imports': 1.0, 'first_state': 2.0, 'first_step': seconds} for seconds in (3.0, 5.0, 4.0)]
  rows = starts.summary(times)
  assert rows[-1] == {'part': 'to the first step', 'seconds': 4.0, 'spread': [3.0, 5.0]}
  assert '| to the first step      | 4.00 ' in starts.table(rows)
