"""What goes wrong around a run, seen from the command line: one line, the exit code, and nothing lost."""

import os
import pty
import re
import resource
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
from runs import content, end, outcome, wait_for_line

SAME_END = 'all; the same end'
UNTOUCHED = 'all; untouched'


@pytest.fixture
def start(start):
  """The runs here evaluate twice, half as often as elsewhere."""
  return lambda config, workdir, *flags, **options: start(config, workdir, '--config.eval_every=20', *flags, **options)


@pytest.fixture(scope='module')
def alone(tmp_path_factory):
  """The workdir of a run that was left alone; each test copies it."""
  return tmp_path_factory.mktemp('runs') / 'alone'


@pytest.fixture
def finished(alone, start, tmp_path):
  if not (alone / 'result.json').exists():
    assert end(start('classifier', alone))[1] == 0
  return shutil.copytree(alone, tmp_path / 'run')


@pytest.mark.parametrize(
  ('signum', 'moment', 'code', 'name'),
  [
    (signal.SIGTERM, 'compiling', 143, 'SIGTERM before the first step'),
    (signal.SIGINT, 'training   7/', 130, 'Ctrl-C'),
    (signal.SIGTERM, 'evaluating 20/', 143, 'SIGTERM'),
  ],
)
def test_a_signal_saves_all_and_says_how_to_go_on(signum, moment, code, name, start, tmp_path, finished, fault):
  workdir = tmp_path / 'stopped'
  process = start('classifier', workdir)
  wait_for_line(process, moment)
  process.send_signal(signum)
  line, returncode = end(process)
  assert returncode == code
  assert signal.Signals(signum).name in line and str(workdir) in line and 'same command' in line
  assert (workdir / 'figures' / 'learning_curves.png').exists() == (moment != 'compiling')
  assert end(start('classifier', workdir))[1] == 0
  assert outcome(workdir) == outcome(finished)
  fault(name, re.sub(r'step \d+', 'step N', line), code, SAME_END)


def test_a_closed_terminal_saves_all(start, tmp_path, finished, fault):
  """The process leads the terminal's session, as a shell does: nothing that it prints from then on is taken."""
  terminal, inner = pty.openpty()
  lead = 'import fcntl, os, signal, termios; signal.signal(signal.SIGHUP, signal.SIG_DFL); '
  lead += 'os.setsid(); fcntl.ioctl(2, termios.TIOCSCTTY, 0)'
  workdir = tmp_path / 'hung_up'
  process = start('classifier', workdir, '--config.checkpoint_every=0', before=lead, stderr=inner)
  os.close(inner)
  shown = ''
  while '7/40' not in shown:
    shown += os.read(terminal, 2**16).decode()
  os.close(terminal)
  assert process.wait(300) == 129
  assert (workdir / 'figures' / 'learning_curves.png').exists() and list((workdir / 'checkpoints').iterdir())
  assert end(start('classifier', workdir))[1] == 0
  assert outcome(workdir) == outcome(finished)
  fault('a closed terminal (SIGHUP), without `nohup`', '', 129, SAME_END)


def test_a_second_signal_ends_at_once_even_in_a_call_that_does_not_return(fault):
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
  fault('a second signal', '', process.returncode, 'as if killed')


@pytest.mark.parametrize(
  ('damage', 'name'),
  [
    ('truncated', 'the newest checkpoint is truncated'),
    ('emptied', 'a file of the newest checkpoint is empty'),
    ('flipped', 'a bit of the newest checkpoint is flipped'),
    ('removed', 'a file of the newest checkpoint is missing'),
  ],
)
def test_a_damaged_newest_checkpoint_is_set_aside(damage, name, finished, start, fault):
  before = outcome(finished)
  newest = max((finished / 'checkpoints').glob('[0-9]*'), key=lambda path: int(path.name))
  target = max((path for path in newest.rglob('*') if path.is_file()), key=lambda path: path.stat().st_size)
  data = bytearray(target.read_bytes())
  data[len(data) // 3] ^= 4
  target.write_bytes({'truncated': data[: len(data) // 2], 'emptied': b'', 'flipped': data}.get(damage, b''))
  if damage == 'removed':
    target.unlink()
  process = start('classifier', finished)
  _, errors = process.communicate(timeout=300)
  assert process.returncode == 0, errors
  assert 'step 40 is damaged' in errors and (finished / 'checkpoints' / 'set_aside').is_dir()
  assert outcome(finished) == before
  (line,) = [line for line in errors.splitlines() if 'damaged' in line]
  line = line.replace(str(target.relative_to(newest)), '…')
  fault(name, re.sub(r'\d+ bytes, not \d+', 'N bytes, not M', line), 0, SAME_END)


def test_a_newest_checkpoint_that_is_gone(finished, start, fault):
  before = outcome(finished)
  shutil.rmtree(finished / 'checkpoints' / '40')
  assert end(start('classifier', finished))[1] == 0
  assert outcome(finished) == before
  fault('the newest checkpoint is missing', '', 0, SAME_END)


@pytest.mark.parametrize(
  ('other', 'name', 'told'),
  [
    ('--config.width=8', 'a checkpoint of another model', 'of another model: state/params/'),
    ('--config.optimizer.name=sgd', 'a checkpoint of another optimizer', 'of another optimizer: state/opt_state/'),
  ],
)
def test_a_checkpoint_of_another_run(other, name, told, finished, start, tmp_path, fault):
  assert end(start('classifier', tmp_path / 'other', other))[1] == 0
  shutil.rmtree(finished / 'checkpoints' / '40')
  shutil.copytree(tmp_path / 'other' / 'checkpoints' / '40', finished / 'checkpoints' / '40')
  before = content(finished / 'checkpoints'), (finished / 'metrics.jsonl').read_bytes()
  line, code = end(start('classifier', finished))
  assert code == 4 and told in line
  assert (content(finished / 'checkpoints'), (finished / 'metrics.jsonl').read_bytes()) == before
  fault(name, line, code, 'all; checkpoints and metrics.jsonl untouched')


def test_a_workdir_of_another_config_is_left_as_it_is(finished, start, fault):
  before = content(finished)
  line, code = end(start('classifier', finished, '--config.width=8', '--config.optimizer.lr=0.5', '--config.steps=50'))
  assert code == 6 and content(finished) == before
  assert 'width: 32 there, 8 now' in line and 'optimizer.lr: 0.001 there, 0.5 now' in line and 'steps' not in line
  fault('a workdir of another config', line, code, UNTOUCHED)
  line, code = end(start('ring', finished))
  assert code == 6 and content(finished) == before and 'ring.py' in line


@pytest.mark.parametrize(
  ('place', 'name'), [('file/run', 'a workdir that cannot be made'), ('files', 'a workdir that holds other files')]
)
def test_a_workdir_that_cannot_be_one(place, name, tmp_path, start, fault):
  (tmp_path / 'file').write_text('mine')
  (tmp_path / 'files').mkdir()
  (tmp_path / 'files' / 'thesis.tex').write_text('mine')
  line, code = end(start('classifier', tmp_path / place))
  assert code == 6 and str(tmp_path / place) in line
  assert [path.read_text() for path in tmp_path.rglob('*') if path.is_file() and path.name != 'lock'] == ['mine'] * 2
  fault(name, line, code, 'the other files')


# Gives up the right of the superuser to write everywhere: PR_CAPBSET_DROP of CAP_DAC_OVERRIDE.
AS_NOBODY = 'import ctypes; ctypes.CDLL(None).prctl(24, 1, 0, 0, 0)'


def test_a_workdir_that_cannot_be_written(start, finished, fault):
  before = content(finished)
  for path in (finished, *finished.rglob('*')):
    path.chmod(0o500)
  line, code = end(start('classifier', finished, before=AS_NOBODY))
  assert code == 6 and content(finished) == before
  fault('a workdir that cannot be written', line, code, UNTOUCHED)
  for path in (finished, *finished.rglob('*')):
    path.chmod(0o700)


def test_a_workdir_that_is_taken_away(start, tmp_path, finished, fault):
  """A run that is moved while it goes on ends, makes no second workdir there, and goes on where it is now."""
  workdir, moved = tmp_path / 'workdir', tmp_path / 'moved'
  process = start('classifier', workdir, '--config.checkpoint_every=20')
  wait_for_line(process, 'training   7/')
  process.send_signal(signal.SIGSTOP)
  workdir.rename(moved)
  process.send_signal(signal.SIGCONT)
  line, code = end(process)
  assert code == 6 and str(workdir) in line and not workdir.exists()
  assert end(start('classifier', moved))[1] == 0
  assert outcome(moved) == outcome(finished)
  fault('the workdir is taken away during the run', line, code, 'all, in its new place; the same end')


def test_two_runs_in_one_workdir(start, tmp_path, finished, fault):
  workdir = tmp_path / 'shared'
  first = start('classifier', workdir)
  wait_for_line(first, 'compiling')
  first.send_signal(signal.SIGSTOP)
  line, code = end(start('classifier', workdir))
  first.send_signal(signal.SIGCONT)
  assert code == 6 and 'another run' in line
  assert end(first)[1] == 0 and outcome(workdir) == outcome(finished)
  fault('two runs in one workdir', line, code, 'all; the first run goes on')


def test_a_full_disk(start, tmp_path, finished, fault):
  """Files may not grow beyond what a checkpoint needs, as they may not where the disk is full."""
  workdir = tmp_path / 'full'
  process = start('classifier', workdir, '--compilation_cache=')
  resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (12_000, resource.RLIM_INFINITY))
  line, code = end(process)
  assert code == 74 and line.startswith('error: ') and str(workdir) in line
  assert end(start('classifier', workdir))[1] == 0
  assert outcome(workdir) == outcome(finished)
  fault('a full disk', line, code, SAME_END)


@pytest.mark.parametrize(
  ('numbers', 'name'), [((1,), 'standard output is closed'), ((0, 1, 2), 'all standard streams are closed')]
)
def test_closed_streams(numbers, name, start, tmp_path, finished, fault):
  """No file of the run takes their numbers, and with these what is meant for a terminal."""
  process = start('classifier', tmp_path / 'new', before=f'import os; [os.close(number) for number in {numbers}]')
  _, errors = process.communicate(timeout=300)
  assert process.returncode == 0 and 'rror' not in errors, errors
  assert outcome(tmp_path / 'new') == outcome(finished)
  assert (tmp_path / 'new' / 'lock').read_bytes() == b''
  fault(name, '', process.returncode, SAME_END)


@pytest.mark.parametrize(('place', 'name'), [('pipe', 'standard output is `| head`'), ('full', '`> /dev/full`')])
def test_standard_output_that_takes_nothing(place, name, start, finished, fault):
  before = outcome(finished)
  reader, writer = os.pipe()
  os.close(reader)
  with os.fdopen(writer, 'w') if place == 'pipe' else Path('/dev/full').open('w') as output:
    process = start('classifier', finished, stdout=output)
  _, errors = process.communicate(timeout=300)
  assert errors.count('rror') == 1, errors
  assert outcome(finished) == before
  fault(name, errors.splitlines()[-1], process.returncode, SAME_END)


def test_a_command_line_that_is_wrong(start, tmp_path, fault):
  """Told before there is so much as a workdir."""
  mistakes = {
    'a wrong flag': ('--workdri=x', 'nearest: --workdir'),
    'a wrong key': ('--config.lr=1', 'nearest: optimizer.lr'),
    'a wrong type': ('--config.batch_size=many', 'must be int'),
    'a wrong value': ('--config.batch_size=0', 'must be at least 1'),
    'a bucket as workdir': ('--workdir=gs://bucket/run', 'mount the bucket'),
    'an empty workdir': ('--workdir=', 'is empty'),
    'a wrong name': ('--config.optimizer.name=AdamW', 'nearest: adamw'),
  }
  processes = {name: start('classifier', tmp_path / 'new', flag) for name, (flag, _) in mistakes.items()}
  for name, process in processes.items():
    line, code = end(process)
    assert code == 2 and mistakes[name][1] in line
    fault(name, line, code, 'nothing is started')
  assert not (tmp_path / 'new').exists()


def test_a_run_is_profiled_and_checked_by_flags(start, tmp_path, fault):
  line, code = end(start('classifier', tmp_path / 'run', '--profile=3'))
  assert code == 2 and line.startswith('error: --profile=3: must be STEP:COUNT') and not (tmp_path / 'run').exists()
  flags = ('--config.steps=4', '--config.eval_every=0', '--profile=3:2', '--debug_nans')
  assert end(start('classifier', tmp_path / 'run', *flags))[1] == 0
  assert list((tmp_path / 'run' / 'profile').rglob('*.xplane.pb'))
