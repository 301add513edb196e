"""Classes and code of configs: imported from files anywhere, found again by a workdir, told where they have changed."""

import hashlib
import json
import pickle
import sys

import pytest
from runs import claim, make

from launch.flags import load_config
from research.errors import ConfigError, WorkdirError
from research.train.environment import changes
from research.train.loop import train
from research.train.workdir import saved_config

OUTSIDE = """
import dataclasses

from {helper} import WIDTH
from research.train.config import Config


@dataclasses.dataclass
class Wide(Config):
  width: int = WIDTH


def get_config():
  return Wide()
"""


@pytest.fixture
def outside(tmp_path):
  """A config outside the repository, whose class has a name of its own and whose default is in a module beside it."""
  folder, helper = tmp_path / 'mine', f'width_of_{tmp_path.name}'
  folder.mkdir()
  (folder / f'{helper}.py').write_text('WIDTH = 7')
  (folder / 'config.py').write_text(OUTSIDE.format(helper=helper))
  return folder / 'config.py'


def test_a_class_of_any_name_in_a_file_anywhere_comes_back_and_can_be_pickled(outside, tmp_path):
  config = load_config(str(outside))
  claim(tmp_path / 'run', config)
  loaded = saved_config(tmp_path / 'run')
  assert type(loaded) is type(config) and loaded.width == 7
  assert pickle.loads(pickle.dumps(loaded)) == config


def test_another_class_of_the_same_file_is_another_config(outside, tmp_path):
  outside.write_text(outside.read_text() + '\n\nclass Other(Wide):\n  pass\n')
  config = load_config(str(outside))
  claim(tmp_path / 'run', config)
  with pytest.raises(WorkdirError, match='class: Wide there, Other now'):
    claim(tmp_path / 'run', sys.modules[type(config).__module__].Other())


def test_a_config_file_that_was_moved_is_told(outside, tmp_path, told, fault):
  claim(tmp_path / 'run', load_config(str(outside)))
  outside.rename(outside.with_name('moved.py'))
  line, code = told(lambda: saved_config(tmp_path / 'run'))
  fault('the file of a config was moved after the run', line, code, 'all; untouched')


@pytest.mark.parametrize('place', ['__main__', 'a function'])
def test_a_class_that_no_other_process_could_import_is_told_before_training(place, tmp_path, told, fault):
  class Cell(type(make('classifier'))):
    pass

  if place == '__main__':  # as in a notebook
    Cell.__module__, Cell.__qualname__ = '__main__', 'Cell'
  config = Cell()
  line, code = told(lambda: next(train(config, tmp_path / 'run')))
  assert not (tmp_path / 'run').exists()
  if place == '__main__':
    fault('a config that is written in a notebook', line, code, 'nothing is started')
  else:
    assert 'in a function' in line


def test_a_module_beside_a_config_that_another_one_hides_is_told(outside):
  (outside.parent / 'json.py').write_text('')
  outside.write_text('import json.decoder\n' + outside.read_text())
  with pytest.raises(ConfigError, match=r'imports json, which is .*/json/__init__.py and not .*/mine/json.py'):
    load_config(str(outside))


def test_other_code_is_told_when_a_run_goes_on(outside, tmp_path, monkeypatch, fault):
  lines, run, config = [], tmp_path / 'run', load_config(str(outside))
  (helper,) = outside.parent.glob('width_of*.py')
  monkeypatch.setattr('research.train.workdir.logging.warning', lines.append)
  claim(run, config)
  claim(run, config, step=5)
  assert not lines
  helper.write_text('WIDTH = 8')
  claim(run, config, step=9)
  assert helper.name in lines[0] and 'config.py' not in lines[0] and 'step 9' in lines[0]
  fault('the code was changed before a run goes on', lines[0].replace(helper.name, 'model.py'), 0, 'all')
  code = [start['code'] for start in json.loads((run / 'environment.json').read_text())]
  assert code[0] == code[1] != code[2] and {'experiments/wiring.py', 'research/train/loop.py'} < code[0].keys()
  assert code[0][str(helper)] == hashlib.sha256(b'WIDTH = 7').hexdigest()[:12]
  claim(run, config, step=5)  # the steps of the last start are taken anew, but not those of the first
  claim(run, config, step=0)  # nor are these left
  assert len(lines) == 2 and 'step 5' in lines[1]


def start_at(step: int, **changes) -> dict:
  return {'step': step, 'python': '3.11', 'versions': {'jax': '1'}, 'code': {'a.py': 'x', 'b.py': 'y'}, **changes}


@pytest.mark.parametrize(
  ('starts', 'expected'),
  [
    ([start_at(0), start_at(5)], {}),
    ([start_at(0), start_at(5, versions={'jax': '2'}, python='3.12')], {5: 'python 3.11 -> 3.12, jax 1 -> 2'}),
    ([start_at(0), start_at(5, code={'b.py': 'z', 'c.py': 'new'}), start_at(9)], {5: 'b.py', 9: 'b.py'}),
    ([start_at(0), start_at(5, code={'a.py': 'z'}), start_at(5)], {}),
    ([start_at(3), start_at(5, code={'a.py': 'z'}), start_at(2, code={'a.py': 'z'})], {}),
    ([{'python': '3.11', 'versions': {}}, start_at(5)], {}),
    ([start_at(0, code=dict.fromkeys('abcdefg', 'x')), start_at(1, code={})], {}),
    (
      [start_at(0, code=dict.fromkeys('abcdefg', 'x')), start_at(1, code=dict.fromkeys('abcdefg', 'y'))],
      {1: 'a, b, c, d, e, and 2 more files'},
    ),
  ],
)
def test_what_changed_within_a_run_is_known_from_its_starts(starts, expected):
  assert changes(starts) == expected
