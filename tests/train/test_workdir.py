"""The folder of a run: whose it is, what may change, and what is in it."""

import contextlib
import dataclasses
import errno
import fcntl
import hashlib
import json
import os
import pickle
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from tensorboardX.proto.event_pb2 import Event

from launch.flags import load_config as config_of
from research.data.examples import Arrays
from research.errors import ConfigError, DataError, WorkdirError
from research.train import recorder
from research.train.config import RESUMABLE, flatten
from research.train.environment import changes
from research.train.loop import train
from research.train.optimizer import Optimizer
from research.train.recorder import Recorder
from research.train.workdir import Workdir, load_config, tree_sha256, write_json

CONFIGS = Path(__file__).parents[1] / 'configs'


def make(name: str = 'classifier', **changes):
  return dataclasses.replace(config_of(f'{CONFIGS / name}.py'), **changes)


def content(folder: Path) -> dict[Path, bytes]:
  return {path: path.read_bytes() for path in folder.rglob('*') if path.is_file()}


def claim(folder: Path, config, step: int = 0) -> None:
  with Workdir(folder, config) as workdir:
    workdir.note_config({})
    workdir.note_start(step, {})


def test_a_config_comes_back_from_its_workdir(tmp_path):
  config = make('regularized', optimizer=Optimizer('step', milestones=(3, 5), freeze=('a/*',)), dropout=0.25)
  claim(tmp_path, config)
  loaded = load_config(tmp_path)
  assert type(loaded).__name__ == 'Config' and flatten(loaded) == flatten(config)
  assert isinstance(loaded.optimizer, Optimizer) and loaded.optimizer.milestones == (3, 5)


OUTSIDE = """
import dataclasses
import errno
import fcntl

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
  config = config_of(str(outside))
  claim(tmp_path / 'run', config)
  loaded = load_config(tmp_path / 'run')
  assert type(loaded) is type(config) and loaded.width == 7
  assert pickle.loads(pickle.dumps(loaded)) == config


def test_older_workdirs_hold_a_class_called_config(tmp_path):
  claim(tmp_path, make())
  saved = json.loads((tmp_path / 'config.json').read_text())
  del saved['class']
  write_json(tmp_path / 'config.json', saved)
  claim(tmp_path, make())
  assert type(load_config(tmp_path)) is type(make())


def test_another_class_of_the_same_file_is_another_config(outside, tmp_path):
  outside.write_text(outside.read_text() + '\n\nclass Other(Wide):\n  pass\n')
  config = config_of(str(outside))
  claim(tmp_path / 'run', config)
  with pytest.raises(WorkdirError, match='class: Wide there, Other now'):
    claim(tmp_path / 'run', sys.modules[type(config).__module__].Other())


def test_a_config_file_that_was_moved_is_told(outside, tmp_path, told, fault):
  claim(tmp_path / 'run', config_of(str(outside)))
  outside.rename(outside.with_name('moved.py'))
  line, code = told(lambda: load_config(tmp_path / 'run'))
  fault('the file of a config was moved after the run', line, code, 'all; untouched')


@pytest.mark.parametrize('place', ['__main__', 'a function'])
def test_a_class_that_no_other_process_could_import_is_told_before_training(place, tmp_path, told, fault):
  class Cell(type(make())):
    pass

  if place == '__main__':  # as in a notebook
    Cell.__module__, Cell.__qualname__ = '__main__', 'Cell'
  config = Cell()
  line, code = told(lambda: next(train(config.build(), config, tmp_path / 'run')))
  assert not (tmp_path / 'run').exists()
  if place == '__main__':
    fault('a config that is written in a notebook', line, code, 'nothing is begun')
  else:
    assert 'in a function' in line


def test_a_module_beside_a_config_that_another_one_hides_is_told(outside):
  (outside.parent / 'json.py').write_text('')
  outside.write_text('import json.decoder\n' + outside.read_text())
  with pytest.raises(ConfigError, match=r'imports json, which is .*/json/__init__.py and not .*/mine/json.py'):
    config_of(str(outside))


def test_a_workdir_without_a_run_is_told(tmp_path, told, fault):
  with pytest.raises(WorkdirError, match='no run to use'):
    load_config(tmp_path)
  line, code = told(lambda: load_config(tmp_path / 'run'))
  assert not (tmp_path / 'run').exists()
  fault('a workdir that is not there, for `launch.evaluate`', line, code, 'nothing is made')
  (tmp_path / 'config.json').write_text('{"file": "tests/configs/classifier.py", "config": {"widht": 3}}')
  with pytest.raises(WorkdirError, match='config.widht'):
    load_config(tmp_path)


OTHER = {'mesh.backend': 'pmap'}


@pytest.mark.parametrize('name', RESUMABLE)
def test_what_a_run_may_change_when_it_goes_on(name, tmp_path):
  claim(tmp_path, make())
  room, _, field = name.rpartition('.')
  owner = getattr(make(), room) if room else make()
  owner = dataclasses.replace(owner, **{field: OTHER.get(name) or getattr(owner, field) + 1})
  changed = make(**{room: owner}) if room else owner
  claim(tmp_path, changed)
  assert flatten(load_config(tmp_path)) == flatten(changed)


@pytest.mark.parametrize(
  ('schedule', 'length', 'told'),
  [('cosine', 0, True), ('cosine', 40, False), ('constant', 0, False), ('inverse_sqrt', 0, False)],
)
def test_other_steps_are_told_where_they_change_the_learning_rate(schedule, length, told, tmp_path, monkeypatch):
  lines = []
  monkeypatch.setattr('research.train.workdir.logging.warning', lines.append)
  config = make(optimizer=Optimizer(schedule=schedule, schedule_steps=length))
  claim(tmp_path, config)
  claim(tmp_path, config)
  assert not lines
  longer = dataclasses.replace(config, steps=config.steps + 1)
  with Workdir(tmp_path, longer):  # as a launcher does before it fetches data
    pass
  claim(tmp_path, longer)
  assert len(lines) == told


def test_a_result_is_that_of_the_steps_of_the_config(tmp_path):
  claim(tmp_path, make())
  write_json(tmp_path / 'result.json', {'steps': 40})
  claim(tmp_path, make())
  assert (tmp_path / 'result.json').exists()
  claim(tmp_path, make(steps=50))
  assert not (tmp_path / 'result.json').exists()


@pytest.mark.parametrize(
  ('name', 'text'),
  [
    ('environment.json', ''),
    ('environment.json', '[{}]'),
    ('result.json', '{}'),
    ('config.json', '[]'),
    ('config.json', '{'),
  ],
)
def test_a_file_that_cannot_be_read_is_named(name, text, tmp_path):
  claim(tmp_path, make())
  (tmp_path / name).write_text(text)
  with pytest.raises(WorkdirError, match=name):
    claim(tmp_path, make())


def test_anything_else_is_refused_with_what_differs(tmp_path):
  claim(tmp_path, make())
  before = content(tmp_path)
  other = make(seed=4, width=8, log_every=3, optimizer=Optimizer(lr=0.5))
  with pytest.raises(WorkdirError) as caught:
    claim(tmp_path, other)
  text = str(caught.value)
  assert 'seed: 0 there, 4 now' in text and 'width: 32 there, 8 now' in text and 'optimizer.lr' in text
  assert 'log_every' not in text and 'batch_size' not in text and str(tmp_path) in text
  assert content(tmp_path) == before


def test_a_config_that_cannot_be_built_does_not_own_the_folder(tmp_path):
  wrong = make('regularized', steps=1, optimizer=Optimizer(freeze=('encoder/*',)))
  with pytest.raises(ConfigError, match=r'optimizer\.freeze'):
    list(train(wrong.build(), wrong, tmp_path))
  claim(tmp_path, make('classifier'))


def test_fewer_steps_than_are_done_are_refused(tmp_path):
  config = make(steps=2, evaluate_every=0)
  list(train(config.build(), config, tmp_path))
  before, config = content(tmp_path), dataclasses.replace(config, steps=1)
  with pytest.raises(ConfigError, match=r'config\.steps=1: .* is at step 2'):
    list(train(config.build(), config, tmp_path))
  assert content(tmp_path) == before


def test_another_experiment_with_the_same_fields_is_refused(tmp_path):
  source = (CONFIGS / 'classifier.py').read_text()
  configs = []
  for name in ('first', 'second'):
    (tmp_path / f'{name}.py').write_text(source)
    configs.append(config_of(str(tmp_path / f'{name}.py')))
  claim(tmp_path / 'run', configs[0])
  with pytest.raises(WorkdirError, match=r'first\.py there, .*second\.py now'):
    claim(tmp_path / 'run', configs[1])


def test_a_workdir_that_takes_no_checkpoint_is_told_before_training(tmp_path, told, fault):
  config = make(steps=1)
  claim(tmp_path, config)
  (tmp_path / 'checkpoints').write_text('mine')
  line, code = told(lambda: list(train(config.build(), config, tmp_path)))
  assert (tmp_path / 'checkpoints').read_text() == 'mine' and not (tmp_path / 'metrics.jsonl').exists()
  fault('a workdir that takes no checkpoint', line, code, 'all; nothing is begun')


def test_a_start_killed_while_it_wrote_its_config_is_no_obstacle(tmp_path):
  (tmp_path / 'config.json.tmp').write_text('{"file": "tes')
  (tmp_path / 'lock').touch()
  claim(tmp_path, make())
  assert flatten(load_config(tmp_path)) == flatten(make())


def test_a_folder_with_other_files_is_left_alone(tmp_path):
  (tmp_path / 'thesis.tex').write_text('mine')
  with pytest.raises(WorkdirError, match='no config.json'):
    claim(tmp_path, make())
  assert sorted(path.name for path in tmp_path.iterdir()) == ['lock', 'thesis.tex']


def test_a_lock_is_held_by_a_process_and_not_by_a_file(tmp_path):
  """Another process holds it; then that one is killed and the file of the lock stays."""
  code = """
import fcntl, sys, time
file = open(sys.argv[1], 'a'); fcntl.flock(file, fcntl.LOCK_EX); print(flush=True); time.sleep(60)
"""
  holder = subprocess.Popen([sys.executable, '-c', code, str(tmp_path / 'lock')], stdout=subprocess.PIPE)
  holder.stdout.readline()
  try:
    with pytest.raises(WorkdirError, match='another run'):
      claim(tmp_path, make())
    assert not (tmp_path / 'config.json').exists()
  finally:
    holder.kill()
    holder.communicate()
  assert (tmp_path / 'lock').exists()
  claim(tmp_path, make())


def test_a_disk_without_locks_is_told(tmp_path, monkeypatch, told, fault):
  def flock(*_):
    raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

  with monkeypatch.context() as patched:
    patched.setattr(fcntl, 'flock', flock)
    line, code = told(lambda: claim(tmp_path / 'run', make()))
  fault('a workdir on a disk without locks', line, code, 'nothing is begun')


@pytest.mark.parametrize('change', ['moved', 'deleted', 'replaced'])
def test_a_folder_that_is_no_longer_there_is_told_and_not_made_anew(change, tmp_path):
  path = tmp_path / 'run'
  with Workdir(path, make()) as workdir:
    workdir.check()
    path.rename(tmp_path / 'moved')
    if change == 'deleted':
      shutil.rmtree(tmp_path / 'moved')
    elif change == 'replaced':
      shutil.copytree(tmp_path / 'moved', path)
    with pytest.raises(WorkdirError, match=f'{path}: was moved, deleted or replaced'):
      workdir.check()
  assert path.exists() == (change == 'replaced')


def test_a_lock_is_given_back_when_a_run_fails(tmp_path):
  config = make()
  with pytest.raises(RuntimeError), Workdir(tmp_path, config):
    raise RuntimeError
  claim(tmp_path, config)


@pytest.mark.parametrize('damage', ['truncated', 'other bytes'])
def test_a_damaged_list_of_starts_is_told(damage, tmp_path, told, fault):
  config = make()
  claim(tmp_path, config)
  whole = (tmp_path / 'environment.json').read_bytes()
  (tmp_path / 'environment.json').write_bytes(whole[:99] if damage == 'truncated' else b'\x80' + whole)
  before = content(tmp_path)
  line, code = told(lambda: claim(tmp_path, config))
  assert content(tmp_path) == before and 'environment.json is damaged' in line and 'delete it' in line
  if damage == 'other bytes':
    fault('environment.json is damaged', line, code, 'all; untouched')
  (tmp_path / 'environment.json').unlink()
  claim(tmp_path, config)


@pytest.mark.parametrize(
  ('changes', 'told'),
  [
    ({'seed': 1}, r'config\.seed=1: was 0 when the experiment was built; call config\.build\(\) again'),
    ({'optimizer': Optimizer(lr=0.5)}, r'config\.optimizer\.lr=0\.5: was 0\.001 when'),
    ({'width': 8}, r'config\.width=8: was 32 when'),
  ],
)
def test_an_experiment_of_another_config_is_refused(changes, told, begun, tmp_path):
  """One that was built for other values, and one whose config was changed since."""
  config, experiment, _ = begun
  with pytest.raises(ConfigError, match=told):
    next(train(experiment, dataclasses.replace(config, **changes), tmp_path / 'run'))
  config = dataclasses.replace(config)
  experiment = config.build()
  for name, value in changes.items():
    setattr(config, name, value)
  with pytest.raises(ConfigError, match=told):
    next(train(experiment, config))
  assert not (tmp_path / 'run').exists()


def test_what_the_loop_alone_reads_may_be_changed_after_the_experiment_is_built(begun):
  config, experiment, _ = begun
  with contextlib.closing(train(experiment, dataclasses.replace(config, log_every=3, keep_best=0))) as records:
    assert next(records).status == 'compiling'


def test_an_experiment_of_a_class_derived_from_the_configs_is_refused(outside, begun):
  config, _, _ = begun

  class Other(type(config)):
    def build(self):
      return super().build()

  other = Other(**vars(config))
  with pytest.raises(ConfigError, match='config: is a .*Config, but the experiment was built from a .*Other'):
    next(train(other.build(), config))
  with contextlib.closing(train(other.build(), other)) as records:
    assert next(records).status == 'compiling'


def test_other_code_is_told_when_a_run_goes_on(outside, tmp_path, monkeypatch, fault):
  lines, run, config = [], tmp_path / 'run', config_of(str(outside))
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


@pytest.mark.parametrize('part', ['train', 'validation', 'test'])
def test_changed_examples_are_refused_before_anything_is_compiled(part, begun, tmp_path, told, fault):
  config, experiment, run = begun
  shutil.copytree(run, tmp_path / 'run')
  lines = (tmp_path / 'run' / 'metrics.jsonl').read_bytes()
  owners = {'train': experiment.train, **experiment.final_evaluators}
  arrays = {name: array.copy() for name, array in owners[part].examples.arrays.items()}
  arrays['inputs'][70, 3, 3] += 1
  owner = dataclasses.replace(owners[part], examples=Arrays(arrays))
  room = {'train': owner} if part == 'train' else {'final_evaluators': {**experiment.final_evaluators, part: owner}}
  changed = dataclasses.replace(experiment, **room)
  with pytest.raises(DataError, match=f'{part} examples') as caught:
    list(train(changed, config, tmp_path / 'run'))
  assert caught.value.exit_code == 3 and (tmp_path / 'run' / 'metrics.jsonl').read_bytes() == lines
  (start,) = json.loads((tmp_path / 'run' / 'environment.json').read_text())
  assert start['data'] == {name: other.examples.fingerprint() for name, other in owners.items()}
  before = content(tmp_path)
  line, code = told(lambda: list(train(changed, config, tmp_path / 'run')))
  assert content(tmp_path) == before
  if part == 'train':
    fault('the data have changed between two starts', line, code, 'all; untouched')


def test_a_workdir_whose_starts_tell_of_fewer_parts_goes_on(begun, tmp_path):
  """As those do that were made before all parts were looked at."""
  config, experiment, run = begun
  shutil.copytree(run, tmp_path / 'run')
  (start,) = json.loads((run / 'environment.json').read_text())
  old = {name: start[name] for name in start if name not in ('step', 'code')}
  write_json(tmp_path / 'run' / 'environment.json', [{**old, 'data': {'train': start['data']['train']}}])
  assert list(train(experiment, config, tmp_path / 'run'))[-1].status == 'done'
  assert json.loads((tmp_path / 'run' / 'result.json').read_text())['changes'] == {}


@pytest.fixture(scope='module')
def begun(tmp_path_factory):
  """A run of five steps: config, experiment and workdir."""
  config, run = make(steps=5), tmp_path_factory.mktemp('begun') / 'run'
  experiment = config.build()
  list(train(experiment, config, run))
  return config, experiment, run


def test_a_file_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
  write_json(tmp_path / 'a.json', {'a': 1})
  monkeypatch.setattr(os, 'fsync', lambda descriptor: (_ for _ in ()).throw(OSError(28, 'No space left on device')))
  with pytest.raises(OSError, match=r'No space left on device: .*a\.json'):
    write_json(tmp_path / 'a.json', {'a': 2})
  assert json.loads((tmp_path / 'a.json').read_text()) == {'a': 1}


def test_the_hash_of_a_tree_sees_every_bit_name_type_and_shape():
  tree = {'a': jnp.arange(4.0), 'b': (jnp.int32(3), jnp.ones((2, 2), jnp.bfloat16))}
  others = [
    {**tree, 'a': tree['a'].at[0].set(-0.0)},
    {'c': tree['a'], 'b': tree['b']},
    {**tree, 'a': tree['a'].reshape(2, 2)},
    {**tree, 'a': tree['a'].astype(jnp.int32)},
    {**tree, 'b': (tree['b'][0], jnp.ones((2, 2), jnp.bfloat16).at[1, 1].add(2**-7))},
  ]
  hashes = [tree_sha256(other) for other in (tree, *others)]
  assert len(set(hashes)) == 6
  assert tree_sha256({'b': (np.int32(3), np.array(tree['b'][1])), 'a': np.asfortranarray(tree['a'])}) == hashes[0]


def events(folder: Path) -> list[Event]:
  """Events of all files of a folder, in the order of the files (TFRecord: length, its sum, data, their sum)."""
  found = []
  for path in sorted(folder.iterdir()):
    data = path.read_bytes()
    while data:
      (length,) = struct.unpack('Q', data[:8])
      found.append(Event.FromString(data[12 : 12 + length]))
      data = data[16 + length :]
  return found


def test_lines_after_the_checkpoint_are_cut_off(tmp_path):
  with Recorder(tmp_path, 0, 0) as first:
    first.write(1, {'loss': 1.0})
    first.write(2, {'loss': 0.5, 'hash': 'abc'})
    assert first.sync() == 2
    first.write(3, {'loss': 0.25})
  with (tmp_path / 'metrics.jsonl').open('a') as file:
    file.write('{"step": 4, "lo')  # a line that a kill cut short
  with Recorder(tmp_path, 2, 2) as second:
    assert [line['step'] for line in recorder.read(tmp_path)] == [1, 2]
    second.write(3, {'loss': 0.125})
  assert recorder.read(tmp_path) == [
    {'step': 1, 'loss': 1.0},
    {'step': 2, 'loss': 0.5, 'hash': 'abc'},
    {'step': 3, 'loss': 0.125},
  ]


def test_a_line_after_a_damaged_one_is_no_part_of_it(tmp_path):
  (tmp_path / 'metrics.jsonl').write_bytes(b'{"step": 1}\n{"st')
  with Recorder(tmp_path, 2, 2) as board:
    board.write(3, {'loss': 0.5})
    assert board.sync() == 3
  assert recorder.read(tmp_path) == [{'step': 1}, {'step': 3, 'loss': 0.5}]


def test_what_no_report_may_yield_is_told(tmp_path):
  with Recorder(tmp_path, 0, 0) as board, pytest.raises(TypeError, match='test/rows is of type list, but must be a '):
    board.show(1, 'test/rows', [1, 2])


def test_tensorboard_holds_the_same_numbers(tmp_path):
  from matplotlib.figure import Figure

  with Recorder(tmp_path, 0, 4) as board:
    board.write(5, {'loss': 0.5, 'hash': 'abc'})
    board.show(5, 'test_note', 'a text')
    figure = Figure(figsize=(1, 1))
    figure.subplots().plot([1, 2])
    board.show(5, 'test_curve', figure)
    board.sync()
    header, start, scalar, text, image = events(tmp_path / 'tensorboard')  # before it is closed
  assert header.file_version == 'brain.Event:2' and start.session_log.status == 1 and start.step == 5
  assert (scalar.step, scalar.summary.value[0].tag, scalar.summary.value[0].simple_value) == (5, 'loss', 0.5)
  assert text.summary.value[0].tensor.string_val == [b'a text']
  assert image.summary.value[0].image.encoded_image_string.startswith(b'\x89PNG')
  assert (tmp_path / 'figures' / 'test_note.txt').read_text() == 'a text'
  assert (tmp_path / 'figures' / 'test_curve.png').read_bytes().startswith(b'\x89PNG')
