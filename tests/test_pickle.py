"""A pickle is refused wherever it may lie, and never loaded: loading one runs whatever its maker wished."""

import ast
import hashlib
import io
import os
import pickle
from pathlib import Path

import numpy as np
import pytest

from research.data import images
from research.data.files import Archive, Places
from research.report import results
from research.train import manifest
from research.train.checkpoint import Checkpoints
from research.train.workdir import saved_config

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ('research', 'launch', 'experiments')
LOADERS = {'pickle', 'cPickle', 'dill', 'cloudpickle', 'joblib', 'shelve', 'marshal'}


class Bomb:
  """Makes the file when it is unpickled."""

  def __init__(self, path: Path):
    self.path = path

  def __reduce__(self):
    return os.mkdir, (str(self.path),)


@pytest.fixture
def bomb(tmp_path):
  """A pickle; the test fails if it went off."""
  assert pickle.loads(pickle.dumps(Bomb(tmp_path / 'tried'))) is None and (tmp_path / 'tried').exists()
  yield pickle.dumps(Bomb(tmp_path / 'loaded'))
  assert not (tmp_path / 'loaded').exists()


def in_numpy(bomb: bytes, form: str, path: Path) -> bytes:
  """The pickle as it is, or an array of objects as numpy saves it."""
  array, buffer = np.empty(1, object), io.BytesIO()
  array[0] = Bomb(path)
  if form == 'pickle':
    return bomb
  np.save(buffer, array) if form == 'npy' else np.savez(buffer, array)
  return buffer.getvalue()


@pytest.mark.parametrize('form', ['pickle', 'npy', 'npz'])
def test_in_place_of_data(form, bomb, tmp_path, told, fault):
  """Even with the right sum."""
  names = [f'{part}-{kind}-ubyte' for part in ('train', 't10k') for kind in ('images-idx3', 'labels-idx1')]
  content = in_numpy(bomb, form, tmp_path / 'loaded')
  (tmp_path / 'manual' / 'mnist').mkdir(parents=True)
  for name in names:
    (tmp_path / 'manual' / 'mnist' / name).write_bytes(content)
  archive = Archive('mnist', dict.fromkeys(names, hashlib.sha256(content).hexdigest()), ())
  line, code = told(lambda: images.mnist(archive, Places(tmp_path / 'cache', tmp_path / 'manual')))
  assert code == 3 and 'not IDX data' in line
  if form == 'npy':
    fault('an array of objects (a pickle) in place of data', line, code, 'nothing is unpickled')


def test_in_place_of_results(bomb, tmp_path, told, fault):
  (tmp_path / 'results.jsonl').write_bytes(bomb)
  line, code = told(lambda: results.read(tmp_path / 'results.jsonl'))
  assert code == 3
  fault('a pickle in place of results.jsonl', line, code, 'nothing is unpickled')


def test_in_place_of_a_config(bomb, tmp_path, told, fault):
  (tmp_path / 'config.json').write_bytes(bomb)
  line, code = told(lambda: saved_config(tmp_path))
  assert code == 6
  fault('a pickle in place of config.json', line, code, 'nothing is unpickled')


@pytest.mark.parametrize('manifested', [True, False])
def test_in_place_of_a_checkpoint(manifested, bomb, tmp_path, told, fault):
  """Also one that someone gave a manifest."""
  small, folder = {'weights': np.ones(3, np.float32)}, tmp_path / 'checkpoints'
  checkpoints = Checkpoints(folder)
  for step in (1, 2):
    checkpoints.save(step, small)
  checkpoints.close()
  leaves = manifest.read(folder / '2')['leaves']
  for path in [path for path in (folder / '2').rglob('*') if path.is_file()]:
    path.write_bytes(bomb)
  if not manifested:
    assert checkpoints.restore(small)[0] == 1
    return
  (folder / '2' / manifest.NAME).unlink()
  manifest.write(folder / '2', step=2, score=None, leaves=leaves)
  line, code = told(lambda: checkpoints.restore(small))
  assert code == 4
  fault('a pickle in place of a checkpoint, its manifest forged', line, code, 'nothing is unpickled')


def test_nothing_in_the_code_loads_one():
  for path in [path for room in ROOMS for path in (ROOT / room).rglob('*.py')]:
    for node in ast.walk(ast.parse(path.read_text())):
      names = [alias.name for alias in node.names] if isinstance(node, ast.Import | ast.ImportFrom) else []
      names += [node.module or ''] if isinstance(node, ast.ImportFrom) else []
      assert not {name.split('.')[0] for name in names} & LOADERS, path
      assert not (isinstance(node, ast.keyword) and node.arg == 'allow_pickle'), path  # numpy's default is False
