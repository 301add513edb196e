"""A sweep from its command line to its table: refused, undisturbed, in parallel, stopped, and killed half-way."""

import json
import os
import shlex
import shutil
import signal
import time
from pathlib import Path

import jax
import pytest
from forks import Program

ROOT = Path(__file__).resolve().parents[2]
CONFIG = 'tests/configs/classifier.py'
CACHE = f'--compilation_cache={jax.config.jax_compilation_cache_dir}-launched'
SWEEP = """
from research.sweep.trials import chain, product, values


def sweep():
  return chain(product(values('optimizer.lr', [1e-4, 1e-2]), values('width', [16])), [{'optimizer.lr': 1e30}])
"""
NAMES = ['0-lr=0.0001-width=16', '1-lr=0.01-width=16', '2-lr=1e+30']  # the last one fails


@pytest.fixture(scope='module')
def file(tmp_path_factory):
  path = tmp_path_factory.mktemp('sweep') / 'sweep.py'
  path.write_text(SWEEP)
  return path


def processes_of(root: Path) -> list[int]:
  """Those whose command line names a workdir in `root`."""
  found = []
  for path in Path('/proc').glob('[0-9]*/cmdline'):
    try:
      words = path.read_bytes()
    except OSError:
      continue
    if f'--workdir={root}/'.encode() in words:
      found.append(int(path.parent.name))
  return found


@pytest.fixture(scope='module')
def start(file, programs, on_one_device):
  """Function (root, *flags) -> the process of a sweep; what still runs at the end is killed, the trials too."""
  started = []

  def launch(root: Path, *flags: str) -> Program:
    words = ['-m', 'launch.sweep', f'--config={CONFIG}', f'--sweep={file}', f'--root={root}', CACHE]
    process = programs.start([*words, '--config.steps=60', '--config.eval_every=30', *flags], on_one_device)
    started.append((process, root))
    return process

  yield launch
  for process, root in started:
    process.kill()
    process.communicate()
    for pid in processes_of(root):
      os.kill(pid, signal.SIGKILL)


def end(process: Program) -> tuple[int, str]:
  """Exit code and the last line on standard error."""
  _, errors = process.communicate(timeout=900)
  assert 'Traceback' not in errors, errors
  return process.returncode, errors.splitlines()[-1]


def outcome(root: Path) -> tuple[list, dict]:
  """The table without its last column, which is time, and the hash of every final State."""
  rows = [line.rsplit('|', 2)[0] for line in (root / 'trials.md').read_text().splitlines()]
  results = {path.parent.name: json.loads(path.read_text()) for path in root.glob('*/result.json')}
  return rows, {name: (result['metrics'], result['state_sha256']) for name, result in results.items()}


def starts(root: Path) -> list[int]:
  """How often each trial has begun."""
  paths = [root / name / 'environment.json' for name in NAMES]
  return [len(json.loads(path.read_text())) if path.exists() else 0 for path in paths]


def wait_until(condition, process: Program) -> None:
  while not condition():
    assert process.poll() is None, process.communicate()
    time.sleep(0.01)


@pytest.fixture(scope='module')
def alone(start, tmp_path_factory):
  """The root of a sweep that was left alone, one trial after the other; and how it ended."""
  root = tmp_path_factory.mktemp('alone') / 'root'
  return root, *end(start(root))


def test_a_sweep_ends_with_table_figure_and_the_best(alone):
  root, code, line = alone
  table, states = outcome(root)
  assert [row.split()[1] for row in table[4:7]] == [NAMES[1], NAMES[0], NAMES[2]]
  assert 'failed, exit 5' in table[6] and not any('test' in row for row in table[:7])
  assert code == 1 and line.startswith(f'error: 1 of 3 trials failed: {NAMES[2]} (exit 5)')
  assert set(states) == set(NAMES[:2]) and starts(root) == [1, 1, 1]
  assert 'NaN' in (root / 'logs' / f'{NAMES[2]}.log').read_text().splitlines()[-1]
  assert (root / 'trials.png').read_bytes().startswith(b'\x89PNG')


def test_the_best_can_be_pasted_and_is_the_same_run(alone, programs, on_one_device, tmp_path):
  root = alone[0]
  words = shlex.split((root / 'trials.md').read_text().splitlines()[-1])
  assert words[:3] == ['python', '-m', 'launch.train'] and words[-1] == f'--workdir={root}/{NAMES[1]}'
  assert programs.run([*words[1:-1], f'--workdir={tmp_path}', CACHE], on_one_device).returncode == 0
  found, expected = (json.loads((path / 'result.json').read_text()) for path in (tmp_path, root / NAMES[1]))
  assert found['state_sha256'] == expected['state_sha256'] and found['metrics'] == expected['metrics']


def test_processes_beside_each_other_give_the_same_table(alone, start, tmp_path):
  process = start(tmp_path, '--runner=processes', '--processes=3')
  wait_until(lambda: len(processes_of(tmp_path)) == 3, process)
  assert end(process)[0] == 1
  table, states = outcome(tmp_path)
  assert (table[:7], states) == (outcome(alone[0])[0][:7], outcome(alone[0])[1])


def test_killed_again_and_again_it_ends_with_the_same_table(alone, start, tmp_path):
  """First the sweep alone is killed and its trial goes on as an orphan, then the sweep and its trial."""
  process = start(tmp_path)
  wait_until(lambda: starts(tmp_path)[0] == 1, process)
  process.kill()
  process.wait()
  (orphan,) = processes_of(tmp_path)
  os.kill(orphan, signal.SIGSTOP)
  claimed = (tmp_path / 'sweep.json').stat().st_mtime_ns
  process = start(tmp_path)
  wait_until(lambda: (tmp_path / 'sweep.json').stat().st_mtime_ns > claimed, process)
  time.sleep(1)
  assert processes_of(tmp_path) == [orphan]
  os.kill(orphan, signal.SIGCONT)
  wait_until(lambda: list((tmp_path / NAMES[1]).glob('checkpoints/[0-9]*')), process)
  process.kill()
  for pid in processes_of(tmp_path):
    os.kill(pid, signal.SIGKILL)
  assert not (tmp_path / NAMES[1] / 'result.json').exists()
  assert end(start(tmp_path))[0] == 1
  table, states = outcome(tmp_path)
  assert (table[:7], states) == (outcome(alone[0])[0][:7], outcome(alone[0])[1])
  assert starts(tmp_path) == [1, 2, 1]


def test_a_signal_stops_trials_and_sweep_and_all_is_saved(alone, start, tmp_path):
  process = start(tmp_path)
  wait_until(lambda: (tmp_path / NAMES[0] / 'metrics.jsonl').exists(), process)
  process.send_signal(signal.SIGTERM)
  code, line = end(process)
  assert code == 143 and 'SIGTERM' in line and str(tmp_path) in line and not processes_of(tmp_path)
  table = (tmp_path / 'trials.md').read_text()
  assert 'stopped, exit 143' in table and table.count('not run') == 2 and 'Best' not in table
  assert 'stopped by SIGTERM' in (tmp_path / 'logs' / f'{NAMES[0]}.log').read_text()


def test_finished_trials_can_be_chosen_from_again_without_a_run(alone, start, tmp_path):
  root = shutil.copytree(alone[0], tmp_path / 'root')
  for name in NAMES[:2]:
    shutil.rmtree(root / name / 'checkpoints')
  end(start(root, '--metric=validation/accuracy', '--direction=min'))
  assert starts(root)[:2] == [1, 1]
  assert outcome(root)[0][4].split()[1] == NAMES[0]


@pytest.mark.parametrize(
  ('flags', 'code', 'told'),
  [
    (['--metric=test/accuracy', '--direction=max'], 2, 'only validation metrics may select'),
    (['--config.seed=3'], 6, 'belongs to another sweep (seed: 0 there, 3 now)'),
  ],
)
def test_mistakes_leave_the_root_as_it_is(flags, code, told, alone, start):
  before = {path: path.read_bytes() for path in alone[0].rglob('*') if path.is_file()}
  returned, line = end(start(alone[0], *flags))
  assert returned == code and told in line
  assert {path: path.read_bytes() for path in alone[0].rglob('*') if path.is_file()} == before
