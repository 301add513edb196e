"""What is shown of a run."""

import contextlib
import fcntl
import io
import os
import pty
import struct
import termios
import time

import pytest

from launch import progress
from launch.progress import COLUMNS, Progress, final_table
from research.train.run import Record


def record(step, metrics, status, note=''):
  return Record(step, metrics, status, None, note)


def train(step, **metrics):
  return record(step, {'train/loss': 0.5, 'train/accuracy': 0.75, 'examples_per_second': 12345.6} | metrics, 'training')


@pytest.fixture
def clock(monkeypatch):
  now = [1000.0]
  monkeypatch.setattr(progress.time, 'monotonic', lambda: now[0])
  return now


def test_plain_lines_tell_what_is_new_and_little_else(clock):
  stream = io.StringIO()
  with Progress(100, stream=stream) as shown:
    shown.show(record(0, {}, 'compiling'))
    shown.show(record(0, {}, 'training', 'devices    1 x GPU\nstep       0 of 100'))
    for step in range(10, 60, 10):
      clock[0] += 1
      shown.show(train(step))
    shown.show(record(50, {}, 'evaluating'))
    shown.show(record(50, {'validation/loss': 0.25, 'validation/accuracy': 0.875}, 'training', 'a note'))
    clock[0] += 6
    shown.show(train(60))
    shown.show(record(60, {}, 'saving'))
  lines = stream.getvalue().splitlines()
  assert [line.split()[:2] for line in lines] == [
    ['compiling', '0/100'],
    ['devices', '1'],
    ['step', '0'],
    ['training', '10/100'],
    ['evaluating', '50/100'],
    ['validation', '50/100'],
    ['a', 'note'],
    ['training', '60/100'],
    ['saving', '60/100'],
  ]
  assert lines[3] == 'training   10/100  loss 0.5000  12,346/s'
  assert lines[5] == 'validation 50/100  loss 0.2500  accuracy 0.8750'
  assert lines[7].startswith('training   60/100  val loss 0.2500  loss 0.5000  00:')


@pytest.mark.parametrize('columns', [None, 140])
def test_every_line_fits_and_has_the_experiments_own_metric_first(clock, columns):
  metrics = {f'validation/{name}': 0.5 for name in ('loss', 'perplexity', 'accuracy', 'macro_f1', 'bits_per_character')}

  def shows(shown):
    shown.show(train(1_000))
    clock[0] += 60
    shown.show(record(100_000, metrics, 'training'))
    shown.show(record(100_000, {}, 'saving'))
    shown.show(train(101_000))

  if columns is None:
    shows(Progress(200_000, 'test/bits_per_character', stream := io.StringIO()))
    lines = stream.getvalue().splitlines()
  else:
    lines = [line for text in terminal_output(columns, shows, 200_000).split('\n') for line in text.split('\r')]
  lines = [line.rstrip() for line in lines]
  evaluated, saving = (next(line for line in lines if line.startswith(word)) for word in ('validation', 'saving'))
  assert evaluated.startswith('validation 100000/200000  bits_per_character 0.5000  loss 0.5000')
  assert 'val bits_per_character 0.5000' in saving and max(map(len, lines)) <= COLUMNS


def test_time_left_is_at_the_pace_of_this_process(clock):
  stream = io.StringIO()
  shown = Progress(1000, stream=stream)
  shown.show(train(500))  # resumed: the first 500 cost nothing here
  clock[0] += 60
  shown.show(train(600))
  assert stream.getvalue().splitlines()[1].endswith('04:00 left  12,346/s')
  shown.show(record(600, {}, 'done'))  # which patience may bring about
  assert 'left' not in stream.getvalue().splitlines()[-1]


def terminal_output(columns, shows, total=100):
  """What arrives at a terminal of so many columns."""
  leader, follower = pty.openpty()
  fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack('HHHH', 40 if columns else 0, columns, 0, 0))
  with os.fdopen(follower, 'w') as stream, Progress(total, 'test/bits_per_character', stream) as shown:
    shows(shown)
  text = b''
  with contextlib.suppress(OSError):  # at the end of what was written
    while part := os.read(leader, 2**16):
      text += part
  return text.decode()


@pytest.mark.parametrize('columns', [140, 0])
def test_a_terminal_shows_a_bar(columns):
  def shows(shown):
    shown.show(record(0, {}, 'compiling'))
    shown.show(train(25))
    time.sleep(0.01)
    shown.show(record(50, {'validation/accuracy': 0.875}, 'evaluating'))

  shown = [text.strip() for text in terminal_output(columns, shows).split('\r') if text.strip()]
  assert any(text.startswith('compiling') and '0/100' in text for text in shown)
  assert '25/100, loss 0.5000  12,346/s' in next(text for text in shown if 'training' in text)
  assert shown[-1].startswith('evaluating') and '50/100' in shown[-1] and 'left' in shown[-1]
  assert 'validation 50/100  accuracy 0.8750\n' in [f'{text}\n' for text in shown]


def test_the_final_table_is_aligned():
  lines = final_table({'test/accuracy': 0.99125, 'test/r2': -0.5, 'test/loss': float('nan')}).splitlines()
  assert [line.split() for line in lines] == [['test/accuracy', '0.9912'], ['test/r2', '-0.5000'], ['test/loss', 'nan']]
  assert len({len(line) for line in lines}) == 1
