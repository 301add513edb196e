"""What is shown of a run."""

import contextlib
import fcntl
import io
import os
import pty
import struct
import termios
import time
from typing import NamedTuple

import pytest

from launch import progress
from launch.progress import Progress, final_table


class Record(NamedTuple):
  step: int
  metrics: dict
  status: str


def train(step, **metrics):
  return Record(step, {'train/loss': 0.5, 'train/accuracy': 0.75, 'examples_per_second': 12345.6} | metrics, 'training')


@pytest.fixture
def clock(monkeypatch):
  now = [1000.0]
  monkeypatch.setattr(progress.time, 'monotonic', lambda: now[0])
  return now


def test_plain_lines_tell_what_is_new_and_little_else(clock):
  stream = io.StringIO()
  with Progress(100, stream) as shown:
    shown.show(Record(0, {}, 'compiling'))
    for step in range(10, 60, 10):
      clock[0] += 1
      shown.show(train(step))
    shown.show(Record(50, {}, 'evaluating'))
    shown.show(Record(50, {'validation/accuracy': 0.875}, 'training'))
    clock[0] += 6
    shown.show(train(60))
    shown.show(Record(60, {}, 'saving'))
  lines = stream.getvalue().splitlines()
  assert [line.split()[:2] for line in lines] == [
    ['compiling', '0/100'],
    ['training', '10/100'],
    ['evaluating', '50/100'],
    ['training', '50/100'],
    ['training', '60/100'],
    ['saving', '60/100'],
  ]
  assert 'loss 0.5000  accuracy 0.7500  12,346 examples/s' in lines[1]
  assert 'validation/accuracy 0.8750' in lines[3]


def test_time_left_is_at_the_pace_of_this_process(clock):
  stream = io.StringIO()
  shown = Progress(1000, stream)
  shown.show(train(500))  # resumed: the first 500 cost nothing here
  clock[0] += 60
  shown.show(train(600))
  assert stream.getvalue().splitlines()[1].endswith('04:00 left')


def terminal_output(columns):
  """What arrives at a terminal of so many columns."""
  leader, follower = pty.openpty()
  fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack('HHHH', 40 if columns else 0, columns, 0, 0))
  with os.fdopen(follower, 'w') as stream, Progress(100, stream) as shown:
    shown.show(Record(0, {}, 'compiling'))
    shown.show(train(25))
    time.sleep(0.01)
    shown.show(Record(50, {'validation/accuracy': 0.875}, 'evaluating'))
  text = b''
  with contextlib.suppress(OSError):  # at the end of what was written
    while part := os.read(leader, 2**16):
      text += part
  return text.decode()


@pytest.mark.parametrize('columns', [140, 0])
def test_a_terminal_shows_a_bar(columns):
  shown = [text.strip() for text in terminal_output(columns).split('\r') if text.strip()]
  assert any(text.startswith('compiling') and '0/100' in text for text in shown)
  assert '25/100, loss 0.5000  accuracy 0.7500  12,346 examples/s' in next(t for t in shown if 'training' in t)
  assert shown[-1].startswith('evaluating') and '50/100' in shown[-1] and 'left' in shown[-1]


def test_the_final_table_is_aligned():
  lines = final_table({'test/accuracy': 0.99125, 'test/r2': -0.5, 'test/loss': float('nan')}).splitlines()
  assert [line.split() for line in lines] == [['test/accuracy', '0.9912'], ['test/r2', '-0.5000'], ['test/loss', 'nan']]
  assert len({len(line) for line in lines}) == 1
