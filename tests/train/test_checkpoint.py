"""Checkpoints against damage, kills, donation and the wrong model; numbers are functions of the step."""

import contextlib
import hashlib
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import optax
import pytest
from jax import numpy as jnp
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from research.errors import CheckpointError
from research.metrics import Mean
from research.tasks.base import State
from research.train import checkpoint, manifest
from research.train.checkpoint import Checkpoints

ROOT = Path(__file__).resolve().parents[2]
SHARDED, REPLICATED = PartitionSpec('data'), PartitionSpec()


def mesh(devices: int) -> jax.sharding.Mesh:
  return jax.make_mesh((devices,), ('data',), axis_types=(AxisType.Auto,), devices=jax.devices()[:devices])


def state(step: int, devices: int = 8) -> State:
  params = {'dense': {'kernel': jnp.full((8, 3), step / 7), 'bias': jnp.arange(3, dtype=jnp.bfloat16) + step}}
  made = State(jnp.int32(step), params, opt_state=optax.adamw(1e-3).init(params), frozen={'teacher': {}})
  made = jax.device_put(made, NamedSharding(mesh(devices), REPLICATED))
  kernel = jax.device_put(params['dense']['kernel'], NamedSharding(mesh(devices), SHARDED))
  return made.replace(params={'dense': {**made.params['dense'], 'kernel': kernel}})


def tree(step: int, devices: int = 8):
  metrics = {'loss': Mean(jnp.float32(step), jnp.float32(3))}
  extra = {'lines': np.int64(2**40 + step), 'flags': np.array([True, False]), 'none': np.zeros((0, 2), np.float32)}
  return {'state': state(step, devices), 'metrics': metrics, **extra}


def abstract(of):
  def describe(leaf):
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=getattr(leaf, 'sharding', None))

  return jax.tree.map(describe, of)


def small(step: int):
  return {'weights': jnp.full((4, 2), step, jnp.float32), 'step': jnp.int32(step)}


SMALL = {'weights': np.zeros((4, 2), np.float32), 'step': np.int32(0)}


def filled(folder: Path, steps=(10, 20), **options) -> Checkpoints:
  checkpoints = Checkpoints(folder, **options)
  for step in steps:
    checkpoints.save(step, small(step))
  checkpoints.wait()
  return checkpoints


def assert_restores(checkpoints: Checkpoints, expected: int, **options):
  found, restored = checkpoints.restore(SMALL, **options)
  assert found == expected
  jax.tree.map(np.testing.assert_array_equal, restored, small(expected))


def contents(folder: Path) -> dict[str, str]:
  return {str(p): hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.rglob('*') if p.is_file()}


def flip_bit(path: Path, generator: np.random.Generator):
  data = bytearray(path.read_bytes())
  data[generator.integers(len(data))] ^= 1 << int(generator.integers(8))
  path.write_bytes(data)


@pytest.fixture(scope='module')
def saved(tmp_path_factory) -> Path:
  """Two good checkpoints, 10 and 20; to be copied."""
  folder = tmp_path_factory.mktemp('saved')
  filled(folder).close()
  return folder


@pytest.fixture
def folder(saved, tmp_path) -> Path:
  return shutil.copytree(saved, tmp_path / 'checkpoints')


def test_every_kind_of_leaf_returns_as_it_was(tmp_path):
  checkpoints, expected = Checkpoints(tmp_path), tree(5)
  checkpoints.save(5, expected)
  step, restored = checkpoints.restore(abstract(expected))
  assert step == 5
  assert jax.tree.structure(restored) == jax.tree.structure(expected)
  for name, (got, want) in enumerate(zip(jax.tree.leaves(restored), jax.tree.leaves(expected), strict=True)):
    assert got.dtype == want.dtype, name
    np.testing.assert_array_equal(got, want)
    assert getattr(got, 'sharding', None) == getattr(want, 'sharding', None)


def test_another_mesh_gets_the_same_numbers(tmp_path):
  checkpoints = Checkpoints(tmp_path)
  checkpoints.save(5, tree(5))
  expected = tree(5, devices=2)
  _, restored = checkpoints.restore(abstract(expected))
  kernel = restored['state'].params['dense']['kernel']
  assert kernel.sharding == expected['state'].params['dense']['kernel'].sharding
  np.testing.assert_array_equal(kernel, expected['state'].params['dense']['kernel'])


def test_arrays_may_be_donated_on_return(tmp_path):
  checkpoints = Checkpoints(tmp_path, keep_latest=9)
  train_step = jax.jit(lambda old: jax.tree.map(lambda leaf: leaf * -3 - 1, old), donate_argnums=0)
  expected = {}
  for step in range(3):
    values = {str(i): jnp.full((256, 256), step * 10 + i, jnp.float32) for i in range(8)}
    expected[step] = {name: step * 10 + int(name) for name in values}
    checkpoints.save(step, values)
    for _ in range(5):
      donated, values = values, train_step(values)
    assert donated['0'].is_deleted()
  for step, numbers in expected.items():
    _, restored = checkpoints.restore({name: np.zeros((256, 256), np.float32) for name in numbers}, step=step)
    for name, number in numbers.items():
      assert (restored[name] == number).all(), (step, name)


def test_numpy_arrays_may_be_changed_on_return(tmp_path):
  checkpoints, values = Checkpoints(tmp_path), {'replay': np.zeros(1_000_000, np.float32)}
  checkpoints.save(1, values)
  values['replay'] += 1
  assert not checkpoints.restore(values)[1]['replay'].any()


def test_one_bit_anywhere_is_noticed(folder):
  generator = np.random.default_rng(0)
  files = [path for path in (folder / '20').rglob('*') if path.is_file()]
  assert len(files) > 5 and folder / '20' / manifest.NAME in files
  for path in [path for path in files if path.stat().st_size] + 20 * [folder / '20' / manifest.NAME]:
    whole = path.read_bytes()
    flip_bit(path, generator)
    with pytest.raises(CheckpointError, match=f'{path}.*there are steps 10'):
      Checkpoints(folder).restore(SMALL, set_aside=False)
    path.write_bytes(whole)
  assert_restores(Checkpoints(folder), 20)


@pytest.mark.parametrize('fault', ['bit', 'truncated', 'emptied', 'missing', 'extra', 'no manifest'])
def test_damaged_newest_is_set_aside_and_the_one_before_used(folder, fault, caplog):
  path = max((folder / '20' / 'state').rglob('*'), key=lambda path: path.is_file() and path.stat().st_size)
  match fault:
    case 'bit':
      flip_bit(path, np.random.default_rng(1))
    case 'truncated':
      path.write_bytes(path.read_bytes()[:-1])
    case 'emptied':
      path.write_bytes(b'')
    case 'missing':
      path.unlink()
    case 'extra':
      path.with_name('extra').write_bytes(b'')
    case 'no manifest':
      (folder / '20' / manifest.NAME).unlink()
  damaged = contents(folder / '20')
  assert_restores(Checkpoints(folder), 10)
  assert [record.levelname for record in caplog.records] == ['WARNING']
  assert 'step 20 is damaged' in caplog.text
  assert sorted(contents(folder / 'set_aside' / '20-0').values()) == sorted(damaged.values())
  checkpoints = filled(folder, [20])
  assert checkpoints.steps() == [10, 20]
  assert_restores(checkpoints, 20)


def test_none_is_left_when_all_are_damaged(folder, caplog):
  for step in (10, 20):
    flip_bit(folder / str(step) / manifest.NAME, np.random.default_rng(2))
  assert Checkpoints(folder).restore(SMALL) is None
  assert 'no usable checkpoint is left' in caplog.text
  assert Checkpoints(folder / 'nowhere').restore(SMALL) is None


def test_reading_changes_nothing(folder):
  flip_bit(folder / '20' / manifest.NAME, np.random.default_rng(3))
  before = contents(folder)
  with pytest.raises(CheckpointError, match='20.*there are steps 10'):
    Checkpoints(folder).restore(SMALL, set_aside=False)
  assert_restores(Checkpoints(folder), 10, step=10, set_aside=False)
  with pytest.raises(CheckpointError, match='no checkpoint of step 15; there are steps 10, 20'):
    Checkpoints(folder).restore(SMALL, step=15)
  assert contents(folder) == before


@pytest.mark.parametrize(
  ('other', 'message'),
  [
    ({**SMALL, 'weights': np.zeros((4, 3), np.float32)}, r'weights is float32\[4, 2\].* float32\[4, 3\]'),
    ({**SMALL, 'weights': np.zeros((4, 2), np.float16)}, r'weights is float32\[4, 2\].* float16\[4, 2\]'),
    ({**SMALL, 'bias': np.zeros(2, np.float32)}, r'bias is missing there and float32\[2\] in this run'),
    ({'step': np.int32(0)}, r'weights is float32\[4, 2\] there and missing in this run'),
  ],
)
def test_another_model_is_refused_by_the_name_of_the_leaf(folder, other, message):
  with pytest.raises(CheckpointError, match=f'20 is of another model: {message}'):
    Checkpoints(folder).restore(other)
  assert Checkpoints(folder).steps() == [10, 20]


def test_best_needs_a_score(folder):
  with pytest.raises(CheckpointError, match='no checkpoint with a score; there are steps 10, 20'):
    Checkpoints(folder).restore(SMALL, best=True)


def test_latest_and_best_are_kept_also_after_a_restart(tmp_path):
  scores = {1: 0.5, 2: 0.9, 3: 0.7, 4: float('nan'), 5: None, 6: 0.1}
  for step, score in scores.items():
    checkpoints = Checkpoints(tmp_path, keep_latest=2, keep_best=1)
    checkpoints.save(step, small(step), score)
    checkpoints.close()
  assert checkpoints.steps() == [2, 5, 6]
  assert_restores(checkpoints, 2, best=True)
  assert_restores(checkpoints, 6)


def test_a_step_is_restored_by_its_number_the_first_too(tmp_path):
  checkpoints = Checkpoints(tmp_path)
  for step in (0, 1):
    checkpoints.save(step, small(step))
  for step in (0, 1):
    assert_restores(checkpoints, step, step=step)


def test_a_score_that_comes_after_the_save(tmp_path):
  checkpoints = Checkpoints(tmp_path, keep_latest=1, keep_best=1)
  assert checkpoints.is_best(0.5) and not checkpoints.is_best(float('nan'))
  checkpoints.save(1, small(1), 0.5)
  checkpoints.save(2, small(2))
  assert not checkpoints.is_best(0.5) and checkpoints.is_best(0.6)
  assert not Checkpoints(tmp_path, keep_best=0).is_best(0.6)
  checkpoints.rescore(2, 0.4)
  assert checkpoints.steps() == [1, 2]
  checkpoints.rescore(2, 0.6)
  assert checkpoints.steps() == [2]
  assert_restores(checkpoints, 2, best=True)


def test_damaged_ones_do_not_count_when_old_ones_are_dropped(folder):
  flip_bit(folder / '20' / manifest.NAME, np.random.default_rng(4))
  assert filled(folder, [30]).steps() == [10, 30]
  assert filled(folder, [40]).steps() == [30, 40]


def test_what_a_killed_save_leaves_is_not_in_the_way(folder):
  shutil.copytree(folder / '20', folder / 'unfinished' / '30')
  shutil.copytree(folder / '20', folder / 'unfinished' / '30.orbax-checkpoint-tmp')
  assert_restores(Checkpoints(folder), 20)
  checkpoints = filled(folder, [30])
  assert_restores(checkpoints, 30)
  assert not (folder / 'unfinished').exists()


def test_a_step_saved_again_holds_the_later_numbers(tmp_path):
  checkpoints = filled(tmp_path, [10, 20])
  checkpoints.save(20, small(21))
  assert checkpoints.restore(SMALL)[1]['step'] == 21
  assert checkpoints.steps() == [10, 20]


@pytest.mark.filterwarnings('ignore::pytest.PytestUnraisableExceptionWarning')  # loops that Orbax left
@pytest.mark.parametrize('limit', [0, 200, 3000])
def test_full_disk_is_an_os_error_and_leaves_the_others_whole(folder, limit):
  checkpoints, tree = Checkpoints(folder), {**small(30), 'large': jnp.ones(10_000)}
  soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
  resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
  try:
    checkpoints.save(30, tree)
    with pytest.raises(OSError, match='File too large'):
      checkpoints.wait()
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
  assert checkpoints.steps() == [10, 20]
  assert_restores(checkpoints, 20)


@pytest.mark.parametrize(
  'name', ['channels=[4,8]', 'a*b?', 'back\\slash', 'ümlaut', os.fsdecode(b'\xff'), '{a} ~$HOME;\'"']
)
def test_any_name_of_a_folder_will_do(name, tmp_path):
  (tmp_path / 'aXbY').mkdir()  # which a pattern would find
  checkpoints = Checkpoints(tmp_path / name)
  checkpoints.try_out()
  assert not list(checkpoints.folder.iterdir())
  checkpoints.save(30, small(30))
  assert_restores(checkpoints, 30)
  assert checkpoints.restore_named(('step',))[1] == {'step': 30}


def test_a_folder_that_gives_nothing_back_is_told_before_the_first_save(tmp_path, monkeypatch):
  monkeypatch.setattr(checkpoint, '_without_patterns', contextlib.nullcontext)  # as in many processes
  with pytest.raises(OSError, match=r'a\[4\] could not be saved: .* use a new workdir'):
    Checkpoints(tmp_path / 'a[4]').try_out()


def test_error_of_a_save_is_raised_by_the_next_one(tmp_path):
  (tmp_path / 'file').write_text('')
  checkpoints = Checkpoints(tmp_path / 'file' / 'checkpoints')
  checkpoints.save(1, small(1))
  with pytest.raises(OSError, match='file'):
    checkpoints.save(2, small(2))


SAVE_FOREVER = """
import sys, numpy as np
from research.train.checkpoint import Checkpoints
checkpoints, step = Checkpoints(sys.argv[1]), int(sys.argv[2])
print('ready', flush=True)
while True:
  step += 1
  checkpoints.save(step, {'weights': np.full((4, 2), step, np.float32), 'step': np.int32(step)}, float(step % 5))
"""


def test_kill_at_any_instant_leaves_a_good_checkpoint(tmp_path, caplog):
  generator, last = np.random.default_rng(), 0
  for _ in range(5):
    process = subprocess.Popen([sys.executable, '-c', SAVE_FOREVER, tmp_path, str(last)], stdout=subprocess.PIPE)
    process.stdout.readline()
    time.sleep(generator.uniform(0.3, 1.0))
    process.send_signal(signal.SIGKILL)
    process.communicate()
    checkpoints = Checkpoints(tmp_path)
    steps = checkpoints.steps()
    assert steps[-1] > last
    assert_restores(checkpoints, steps[-1])
    for step in steps:
      assert_restores(checkpoints, step, step=step)
    last = steps[-1]
  assert not caplog.records and not (tmp_path / 'set_aside').exists()


KILLED_WITHIN = """
import os, shutil, signal, sys, numpy as np
from research.train.checkpoint import Checkpoints
CHANGES = ('os.mkdir', 'os.rename', 'os.remove', 'os.rmdir')

def save(folder, left):
  def kill(event, arguments):
    nonlocal left
    if event in CHANGES or event == 'open' and arguments[2] & (os.O_WRONLY | os.O_RDWR):
      left -= 1
      if not left:
        os.kill(os.getpid(), signal.SIGKILL)

  checkpoints = Checkpoints(folder)
  sys.addaudithook(kill)
  checkpoints.save(30, {'weights': np.full((4, 2), 30, np.float32), 'step': np.int32(30)})
  checkpoints.rescore(30, 0.5)
  checkpoints.close()
  os._exit(0)

killed, instant = True, 0
while killed:
  instant += 1
  folder = shutil.copytree(sys.argv[1], f'{sys.argv[2]}/{instant}')
  child = os.fork() or save(folder, instant)
  killed = os.WIFSIGNALED(os.waitpid(child, 0)[1])
print(instant - 1)
"""


def test_killed_before_each_change_that_a_save_makes(folder, tmp_path, caplog, fault):
  """One process for each call by which Python makes, opens to write, renames or removes a file in a save.

  The same for the score that the checkpoint gets afterward.
  """
  command = [sys.executable, '-c', KILLED_WITHIN, folder, tmp_path / 'killed']
  instants = int(subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout)
  newest = [Checkpoints(tmp_path / 'killed' / str(instant)).steps()[-1] for instant in range(1, instants + 1)]
  assert newest == sorted(newest) and set(newest) == {20, 30} and instants > 10
  paths = [tmp_path / 'killed' / str(instant) / '30' for instant, step in enumerate(newest, 1) if step == 30]
  assert {manifest.read(path)['score'] for path in paths} == {None, 0.5}
  for instant, step in enumerate(newest, 1):
    checkpoints = Checkpoints(tmp_path / 'killed' / str(instant))
    assert_restores(checkpoints, step)
    assert filled(checkpoints.folder, [40]).steps()[-1] == 40
  assert not caplog.records
  fault('killed inside a save', '', 137, 'the checkpoint before, or the new one, whole')
