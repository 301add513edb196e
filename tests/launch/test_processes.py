"""Many processes on this machine, over the loopback interface: the numbers of one, and what is lost when one is."""

import itertools
import json
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jax
import numpy as np
import pytest
from forks import Program
from runs import free_port, make, untold, wait_for_line

from research.errors import ConfigError
from research.parallel import processes
from research.train import recorder
from research.train.restore import restore_state
from research.train.workdir import saved_config

ROOT = Path(__file__).parents[2]
QUIET = '--config.eval_every=0'
MOMENTUM = ('--config.optimizer.name=momentum', '--config.optimizer.lr=0.05')  # Adam would magnify rounding


@pytest.fixture
def together(start):
  """Function (count, config, workdir, *flags) -> that many processes of one run."""

  def launch(count: int, config: str, workdir: Path, *flags: str, devices: int = 1) -> list[Program]:
    shared = [f'--coordinator=127.0.0.1:{free_port()}', f'--processes={count}', '--heartbeat_seconds=5', *flags]
    return [start(config, workdir, *shared, f'--process={number}', devices=devices) for number in range(count)]

  return launch


def ends(processes: list[Program]) -> list[tuple[int, str]]:
  """Exit code and standard error of each."""
  errors = [process.communicate(timeout=300)[1] for process in processes]
  return [(process.returncode, text) for process, text in zip(processes, errors, strict=True)]


def end_of(workdir: Path):
  config = saved_config(workdir)
  return restore_state(config.build(), config, workdir)[1]


@pytest.mark.parametrize(
  ('name', 'mesh'), [('regularized', ('data=2', 'tensor=2')), ('ring', ('data=1', 'fsdp=2', 'tensor=2'))]
)
def test_two_processes_of_two_devices_end_as_one_device_does(name, mesh, together, start, tmp_path):
  flags = (*MOMENTUM, '--config.steps=6', QUIET, '--config.checkpoint_every=3')
  alone, split = tmp_path / 'alone', tmp_path / 'split'
  processes = together(2, name, split, *flags, *(f'--config.mesh.{axis}' for axis in mesh), devices=2)
  for code, errors in ends([start(name, alone, *flags), *processes]):
    assert code == 0, errors
  pairs = zip(*(map(np.asarray, jax.tree.leaves(end_of(path))) for path in (split, alone)), strict=True)
  assert all(np.abs(a - b).max() <= max(1e-5 * np.abs(b).max(), 1e-6) for a, b in pairs)
  lines = [[line['step'] for line in recorder.read(path)] for path in (split, alone)]
  assert lines[0] == lines[1]  # one process writes them


def test_processes_that_would_train_other_runs_are_told_before_anything_is_done(start, tmp_path, fault):
  shared = [f'--coordinator=127.0.0.1:{free_port()}', '--processes=2', '--heartbeat_seconds=5']
  own = (['--config.optimizer.lr=0.01'], ['--config.optimizer.lr=0.02', '--config.log_every=3'])
  processes = [
    start('classifier', tmp_path / 'run', *shared, f'--process={number}', *words) for number, words in enumerate(own)
  ]
  found = ends(processes)
  (line, other) = [errors.splitlines()[-1] for _, errors in found]
  assert [code for code, _ in found] == [2, 2] and line == other, found
  assert 'config.optimizer.lr is 0.01 in process 0 and 0.02 in process 1, config.log_every is 7 in' in line
  assert not (tmp_path / 'run').exists()
  fault('processes of one run have other configs', line, 2, 'all; nothing was started')


class Coordinator:
  """What JAX's coordinator keeps, for processes that are threads here."""

  def __init__(self):
    self.values, self.news = {}, threading.Condition()

  def key_value_set(self, key: str, value: str) -> None:
    with self.news:
      self.values[key] = value
      self.news.notify_all()

  def blocking_key_value_get(self, key: str, milliseconds: int) -> str:
    with self.news:
      assert self.news.wait_for(lambda: key in self.values, 10)
      return self.values[key]


def told(monkeypatch, *facts: dict[str, str]) -> set[str]:
  """What the processes that have these facts are told."""
  state = threading.local()
  coordinator, turn = Coordinator(), itertools.repeat(0)

  def ask(number: int) -> str:
    state.client, state.process_id, state.num_processes = coordinator, number, len(facts)
    try:
      return processes.agree(facts[number]) or ''
    except ConfigError as error:
      return str(error)

  monkeypatch.setattr(processes, '_turns', turn)
  monkeypatch.setattr(processes.distributed, 'global_state', state)
  with ThreadPoolExecutor(len(facts)) as pool:
    return set(pool.map(ask, range(len(facts))))


@pytest.mark.parametrize(
  ('facts', 'expected'),
  [
    ([{'jax': '1', 'a.py': 'x'}, {'jax': '1', 'b.py': 'y'}], ''),
    ([{'jax': '1'}, {'jax': '1'}, {'jax': '2'}], 'jax is 1 in process 0 and 2 in process 2: start all'),
    ([{'a': '1', 'b': '1'}, {'a': '1', 'b': '2'}, {'a': '2', 'b': '1'}], 'b is 1 in process 0 and 2 in process 1: s'),
    ([dict.fromkeys('abcde', '1'), dict.fromkeys('abcde', '2')], 'c is 1 in process 0 and 2 in process 1 (and 2 more)'),
  ],
)
def test_all_processes_are_told_the_same_of_one_that_differs(facts, expected, monkeypatch):
  (line,) = told(monkeypatch, *facts)
  assert expected in line and bool(expected) == bool(line)


def test_a_signal_to_one_stops_all_at_the_same_step(together, tmp_path):
  """Of a run that starts from another one, which both processes read."""
  untold(make('classifier', steps=1), tmp_path / 'other')
  start = f'--config.init_from={tmp_path / "other"}'
  flags = ('--config.mesh.data=2', '--config.steps=100000', '--config.checkpoint_every=0', start, QUIET)
  processes = together(2, 'classifier', tmp_path / 'run', *flags)
  wait_for_line(processes[0], 'training')
  processes[1].send_signal(signal.SIGTERM)
  found = ends(processes)
  assert [code for code, _ in found] == [143, 143], found
  steps = {errors.splitlines()[-1].split(' at step ')[1].split(':')[0] for _, errors in found}
  assert len(steps) == 1 and (tmp_path / 'run' / 'checkpoints' / steps.pop()).is_dir()
  assert json.loads((tmp_path / 'run' / 'environment.json').read_text())[0]['init_from']['step'] == 1


def test_a_killed_process_ends_the_others_and_a_restart_loses_nothing(together, tmp_path):
  flags = (*MOMENTUM, '--config.mesh.data=2', '--config.steps=100', '--config.checkpoint_every=20', QUIET)
  for code, errors in ends(together(2, 'classifier', tmp_path / 'alone', *flags)):
    assert code == 0, errors
  processes = together(2, 'classifier', tmp_path / 'run', *flags)
  while not list((tmp_path / 'run' / 'checkpoints').glob('[0-9]*')):
    assert processes[0].poll() is None
  processes[1].kill()
  code, errors = ends(processes)[0]
  assert code == 7 and 'process 1' in errors.splitlines()[-1], errors
  for code, errors in ends(together(2, 'classifier', tmp_path / 'run', *flags)):
    assert code == 0, errors
  results = [json.loads((tmp_path / folder / 'result.json').read_text()) for folder in ('run', 'alone')]
  assert results[0]['state_sha256'] == results[1]['state_sha256']


ASKS = r"""
import jax, numpy as np, sys
from research.parallel import placement
from research.parallel.mesh import MeshShape, make_mesh
address, count, process = sys.argv[1:]
jax.distributed.initialize(address, int(count), int(process))
for sizes in ((4, 1, 1), (2, 1, 2), (1, 1, 4), (1, 2, 2)):
  mesh, asked = make_mesh(MeshShape(*sizes), 8), []
  rows = lambda index: asked.extend(index.tolist()) or {'inputs': 10 * index}
  batch = placement.put_rows(rows, np.arange(100, 108), placement.batch_sharding(mesh))
  print('\nasked', *asked)
  assert placement.fetch(batch['inputs']).tolist() == [10 * index for index in range(100, 108)]
"""


def test_a_process_asks_for_the_rows_of_its_devices_alone(programs, on_one_device):
  address = f'127.0.0.1:{free_port()}'
  processes = [programs.start(['-c', ASKS, address, '4', str(number)], on_one_device) for number in range(4)]
  outputs = [process.communicate(timeout=120)[0] for process in processes]
  asked = [[line.split()[1:] for line in output.splitlines() if line.startswith('asked ')] for output in outputs]
  for on_mesh, count in zip(zip(*asked, strict=True), (2, 4, 8, 4), strict=True):
    assert [len(rows) for rows in on_mesh] == [count] * 4
    assert set(sum(on_mesh, [])) == set(map(str, range(100, 108)))
