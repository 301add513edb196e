"""What goes wrong around a run, seen from the command line: one line, the exit code, and nothing lost."""

import json
import os
import resource
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from research.train import recorder

TIMING = ('seconds', 'examples_per_second')


def outcome(workdir: Path) -> tuple:
  lines = [{name: value for name, value in line.items() if name not in TIMING} for line in recorder.read(workdir)]
  result = json.loads((workdir / 'result.json').read_text())
  return lines, {name: value for name, value in result.items() if name not in TIMING}


def end(process: subprocess.Popen) -> tuple[int, str]:
  """Exit code and the last line on standard error."""
  _, errors = process.communicate(timeout=300)
  assert 'Traceback' not in errors, errors
  return process.returncode, errors.splitlines()[-1]


def content(workdir: Path) -> dict[str, bytes]:
  return {str(path): path.read_bytes() for path in sorted(workdir.rglob('*')) if path.is_file()}


def wait_for_line(process: subprocess.Popen, text: str) -> None:
  """Until a line of standard error begins with `text`."""
  while not (line := process.stderr.readline()).startswith(text):
    assert line, 'the process ended'


@pytest.fixture(scope='module')
def alone(tmp_path_factory):
  """The workdir of a run that was left alone; each test copies it."""
  return tmp_path_factory.mktemp('runs') / 'alone'


@pytest.fixture
def finished(alone, start, tmp_path):
  if not (alone / 'result.json').exists():
    assert end(start('classifier', alone))[0] == 0
  return shutil.copytree(alone, tmp_path / 'run')


@pytest.mark.parametrize(
  ('signum', 'moment', 'code'),
  [(signal.SIGTERM, 'compiling', 143), (signal.SIGINT, 'training   7/', 130), (signal.SIGTERM, 'evaluating 10/', 143)],
)
def test_a_signal_saves_all_and_says_how_to_go_on(signum, moment, code, start, tmp_path, finished):
  workdir = tmp_path / 'stopped'
  process = start('classifier', workdir)
  wait_for_line(process, moment)
  process.send_signal(signum)
  returncode, line = end(process)
  assert returncode == code
  assert signal.Signals(signum).name in line and str(workdir) in line and 'same command' in line
  assert (workdir / 'figures' / 'learning_curves.png').exists() == (moment != 'compiling')
  assert end(start('classifier', workdir))[0] == 0
  assert outcome(workdir) == outcome(finished)


def test_a_second_signal_ends_at_once_even_in_a_call_that_does_not_return(tmp_path):
  code = """
import hashlib, os, signal, threading
from research.train.signals import Stop
with Stop():
  threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGTERM)).start()
  threading.Timer(0.6, os.kill, (os.getpid(), signal.SIGTERM)).start()
  hashlib.pbkdf2_hmac('sha256', b'', b'', 200_000_000)  # minutes, in which no handler of Python runs
"""
  began = time.monotonic()
  process = subprocess.run([os.sys.executable, '-c', code], cwd=Path(__file__).parents[2], timeout=30)
  assert process.returncode == 143 and time.monotonic() - began < 20


@pytest.mark.parametrize('damage', ['truncated', 'emptied', 'flipped'])
def test_a_damaged_newest_checkpoint_is_set_aside(damage, finished, start):
  before = outcome(finished)
  newest = max((finished / 'checkpoints').glob('[0-9]*'), key=lambda path: int(path.name))
  target = max((path for path in newest.rglob('*') if path.is_file()), key=lambda path: path.stat().st_size)
  data = bytearray(target.read_bytes())
  data[len(data) // 3] ^= 4
  target.write_bytes({'truncated': data[: len(data) // 2], 'emptied': b'', 'flipped': data}[damage])
  process = start('classifier', finished)
  _, errors = process.communicate(timeout=300)
  assert process.returncode == 0, errors
  assert 'step 40 is damaged' in errors and (finished / 'checkpoints' / 'set_aside').is_dir()
  assert outcome(finished) == before


def test_a_workdir_of_another_config_is_left_as_it_is(finished, start):
  before = content(finished)
  code, line = end(start('classifier', finished, '--config.width=8', '--config.optimizer.lr=0.5', '--config.steps=50'))
  assert code == 6 and content(finished) == before
  assert 'width: 32 there, 8 now' in line and 'optimizer.lr: 0.001 there, 0.5 now' in line and 'steps' not in line
  code, line = end(start('ring', finished))
  assert code == 6 and content(finished) == before and 'ring.py' in line


@pytest.mark.parametrize('place', ['file/run', 'files'])
def test_a_workdir_that_cannot_be_one(place, tmp_path, start):
  (tmp_path / 'file').write_text('mine')
  (tmp_path / 'files').mkdir()
  (tmp_path / 'files' / 'thesis.tex').write_text('mine')
  code, line = end(start('classifier', tmp_path / place))
  assert code == 6 and str(tmp_path / place) in line
  assert [path.read_text() for path in tmp_path.rglob('*') if path.is_file() and path.name != 'lock'] == ['mine'] * 2


def test_two_runs_in_one_workdir(start, tmp_path, finished):
  workdir = tmp_path / 'shared'
  first = start('classifier', workdir)
  wait_for_line(first, 'compiling')
  first.send_signal(signal.SIGSTOP)
  code, line = end(start('classifier', workdir))
  first.send_signal(signal.SIGCONT)
  assert code == 6 and 'another run' in line
  assert end(first)[0] == 0 and outcome(workdir) == outcome(finished)


def test_a_full_disk(start, tmp_path, finished):
  """Files may not grow beyond what a checkpoint needs, as they may not where the disk is full."""
  workdir = tmp_path / 'full'
  process = start('classifier', workdir, '--compilation_cache=')
  resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (3_000, resource.RLIM_INFINITY))
  code, line = end(process)
  assert code == 74 and line.startswith('error: ') and str(workdir) in line
  assert end(start('classifier', workdir))[0] == 0
  assert outcome(workdir) == outcome(finished)
