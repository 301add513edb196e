"""The folder of a run: whose it is, what may change, and what is in it."""

import contextlib
import dataclasses
import errno
import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from runs import claim, make

from launch.flags import load_config
from research.data.examples import Arrays
from research.errors import ConfigError, DataError, WorkdirError
from research.parallel.mesh import MeshShape
from research.report.curves import draw_curves
from research.train.config import RESUMABLE, Config, flatten
from research.train.loop import train
from research.train.optimizer import Optimizer
from research.train.run import Interrupted
from research.train.workdir import Workdir, in_use, saved_config, take, tree_sha256, write_json

CONFIGS = Path(__file__).parents[1] / 'configs'


def content(folder: Path) -> dict[Path, bytes]:
  return {path: path.read_bytes() for path in folder.rglob('*') if path.is_file()}


def test_a_config_comes_back_from_its_workdir(tmp_path):
  config = make('regularized', optimizer=Optimizer('step', milestones=(3, 5), freeze=('a/*',)), dropout_rate=0.25)
  claim(tmp_path, config)
  loaded = saved_config(tmp_path)
  assert type(loaded).__name__ == 'Config' and flatten(loaded) == flatten(config)
  assert isinstance(loaded.optimizer, Optimizer) and loaded.optimizer.milestones == (3, 5)


@dataclasses.dataclass
class Computed(Config):
  width: int = 4
  area: int = dataclasses.field(init=False)

  def __post_init__(self):
    self.area = self.width**2


@dataclasses.dataclass
class Doubled(Config):
  width: int = 4

  def __post_init__(self):
    self.width *= 2


def test_a_config_that_would_come_back_as_another_is_told_before_training(tmp_path, told, fault):
  claim(tmp_path / 'computed', Computed(width=3))
  assert flatten(saved_config(tmp_path / 'computed')) == flatten(Computed(width=3))
  line, code = told(lambda: claim(tmp_path / 'doubled', Doubled(width=3)))
  assert not (tmp_path / 'doubled').exists()
  fault('a config whose `__post_init__` changes a field', line, code, 'nothing is started')


def test_older_workdirs_hold_a_class_called_config(tmp_path):
  claim(tmp_path, make('classifier'))
  saved = json.loads((tmp_path / 'config.json').read_text())
  del saved['class']
  write_json(tmp_path / 'config.json', saved)
  claim(tmp_path, make('classifier'))
  assert type(saved_config(tmp_path)) is type(make('classifier'))


def test_a_workdir_without_a_run_is_told(tmp_path, told, fault):
  with pytest.raises(WorkdirError, match='no run to use'):
    saved_config(tmp_path)
  line, code = told(lambda: saved_config(tmp_path / 'run'))
  assert not (tmp_path / 'run').exists()
  fault('a workdir that is not there, for `launch.evaluate`', line, code, 'nothing is made')
  (tmp_path / 'config.json').write_text('{"file": "tests/configs/classifier.py", "config": {"widht": 3}}')
  with pytest.raises(WorkdirError, match='config.widht'):
    saved_config(tmp_path)


OTHER = {'mesh.backend': 'pmap', 'init_from': 'runs/other', 'init_map': ('a=b',)}


@pytest.mark.parametrize('name', RESUMABLE)
def test_what_a_run_may_change_when_it_goes_on(name, tmp_path):
  claim(tmp_path, make('classifier'))
  room, _, field = name.rpartition('.')
  owner = getattr(make('classifier'), room) if room else make('classifier')
  owner = dataclasses.replace(owner, **{field: OTHER.get(name) or getattr(owner, field) + 1})
  changed = make('classifier', **{room: owner}) if room else owner
  claim(tmp_path, changed)
  assert flatten(saved_config(tmp_path)) == flatten(changed)


@pytest.mark.parametrize(
  ('schedule', 'length', 'told'),
  [('cosine', 0, True), ('cosine', 40, False), ('constant', 0, False), ('inverse_sqrt', 0, False)],
)
def test_other_steps_are_told_where_they_change_the_learning_rate(schedule, length, told, tmp_path, monkeypatch):
  lines = []
  monkeypatch.setattr('research.train.workdir.logging.warning', lines.append)
  config = make('classifier', optimizer=Optimizer(schedule=schedule, schedule_steps=length))
  claim(tmp_path, config)
  claim(tmp_path, config)
  assert not lines
  longer = dataclasses.replace(config, steps=config.steps + 1)
  with Workdir(tmp_path, longer):  # as a launcher does before it fetches data
    pass
  claim(tmp_path, longer)
  assert len(lines) == told


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
  claim(tmp_path, make('classifier'))
  (tmp_path / name).write_text(text)
  with pytest.raises(WorkdirError, match=name):
    claim(tmp_path, make('classifier'))


def test_anything_else_is_refused_with_what_differs(tmp_path):
  claim(tmp_path, make('classifier'))
  before = content(tmp_path)
  other = make('classifier', seed=4, width=8, log_every=3, optimizer=Optimizer(lr=0.5))
  with pytest.raises(WorkdirError) as caught:
    claim(tmp_path, other)
  text = str(caught.value)
  assert 'seed: 0 there, 4 now' in text and 'width: 32 there, 8 now' in text and 'optimizer.lr' in text
  assert 'log_every' not in text and 'batch_size' not in text and str(tmp_path) in text
  assert content(tmp_path) == before


def test_a_config_that_cannot_be_built_does_not_own_the_folder(tmp_path):
  wrong = make('regularized', steps=1, optimizer=Optimizer(freeze=('encoder/*',)))
  with pytest.raises(ConfigError, match=r'optimizer\.freeze'):
    list(train(wrong, tmp_path))
  claim(tmp_path, make('classifier'))


@pytest.mark.parametrize(
  ('changes', 'error'),
  [
    ({'seed': -1}, r'config\.seed'),
    ({'mesh': MeshShape(9)}, r'config\.mesh'),
    ({'width': 8}, 'belongs to another config'),
  ],
)
def test_nothing_is_fetched_for_a_run_that_cannot_be(changes, error, tmp_path, monkeypatch):
  config = make('classifier', **changes)
  claim(tmp_path, make('classifier'))
  monkeypatch.setattr(type(config), 'build', lambda config: pytest.fail('data were fetched'))
  with pytest.raises((ConfigError, WorkdirError), match=error):
    next(train(config, tmp_path))


def test_the_workdir_is_locked_while_data_are_fetched_and_a_signal_ends_that(tmp_path, monkeypatch):
  def fetch(config):
    assert in_use(tmp_path)
    os.kill(os.getpid(), signal.SIGTERM)
    pytest.fail('the signal came too late')

  config = make('classifier')
  monkeypatch.setattr(type(config), 'build', fetch)
  with pytest.raises(Interrupted, match='SIGTERM while building the experiment') as caught:
    next(train(config, tmp_path))
  assert caught.value.exit_code == 143 and not in_use(tmp_path)
  assert 'nothing new to save in' in str(caught.value)
  draw_curves(tmp_path)  # as the launcher does: there are none yet
  assert not (tmp_path / 'figures').exists()


def test_fewer_steps_than_are_done_are_refused(tmp_path):
  config = make('classifier', steps=2, eval_every=0)
  list(train(config, tmp_path))
  before, config = content(tmp_path), dataclasses.replace(config, steps=1)
  with pytest.raises(ConfigError, match=r'config\.steps=1: .* is at step 2'):
    list(train(config, tmp_path))
  assert content(tmp_path) == before


def test_another_experiment_with_the_same_fields_is_refused(tmp_path):
  source = (CONFIGS / 'classifier.py').read_text()
  configs = []
  for name in ('first', 'second'):
    (tmp_path / f'{name}.py').write_text(source)
    configs.append(load_config(str(tmp_path / f'{name}.py')))
  claim(tmp_path / 'run', configs[0])
  with pytest.raises(WorkdirError, match=r'first\.py there, .*second\.py now'):
    claim(tmp_path / 'run', configs[1])


def test_a_workdir_that_takes_no_checkpoint_is_told_before_training(tmp_path, told, fault):
  config = make('classifier', steps=1)
  claim(tmp_path, config)
  (tmp_path / 'checkpoints').write_text('mine')
  line, code = told(lambda: list(train(config, tmp_path)))
  assert (tmp_path / 'checkpoints').read_text() == 'mine' and not (tmp_path / 'metrics.jsonl').exists()
  fault('a workdir that takes no checkpoint', line, code, 'all; nothing is started')


def test_a_start_killed_while_it_wrote_its_config_is_no_obstacle(tmp_path):
  (tmp_path / 'config.json.tmp').write_text('{"file": "tes')
  (tmp_path / 'lock').touch()
  claim(tmp_path, make('classifier'))
  assert flatten(saved_config(tmp_path)) == flatten(make('classifier'))


def test_a_folder_with_other_files_is_left_alone(tmp_path):
  (tmp_path / 'thesis.tex').write_text('mine')
  with pytest.raises(WorkdirError, match='no config.json'):
    claim(tmp_path, make('classifier'))
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
      claim(tmp_path, make('classifier'))
    assert not (tmp_path / 'config.json').exists()
  finally:
    holder.kill()
    holder.communicate()
  assert (tmp_path / 'lock').exists()
  claim(tmp_path, make('classifier'))


def test_a_disk_without_locks_is_told(tmp_path, monkeypatch, told, fault):
  def flock(*_):
    raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

  with monkeypatch.context() as patched:
    patched.setattr(fcntl, 'flock', flock)
    line, code = told(lambda: claim(tmp_path / 'run', make('classifier')))
  fault('a workdir on a disk without locks', line, code, 'nothing is started')


@pytest.mark.parametrize('change', ['moved', 'deleted', 'replaced'])
def test_a_folder_that_is_no_longer_there_is_told_and_not_made_anew(change, tmp_path):
  path = tmp_path / 'run'
  with Workdir(path, make('classifier')) as workdir:
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
  config = make('classifier')
  with pytest.raises(RuntimeError), Workdir(tmp_path, config):
    raise RuntimeError
  claim(tmp_path, config)


@pytest.mark.parametrize('damage', ['truncated', 'other bytes'])
def test_a_damaged_list_of_starts_is_told(damage, tmp_path, told, fault):
  config = make('classifier')
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
    next(train(dataclasses.replace(config, **changes), tmp_path / 'run', experiment=experiment))
  config = dataclasses.replace(config)
  experiment = config.build()
  for name, value in changes.items():
    setattr(config, name, value)
  with pytest.raises(ConfigError, match=told):
    next(train(config, experiment=experiment))
  assert not (tmp_path / 'run' / 'config.json').exists()


def test_batches_of_another_size_than_the_config_says_are_refused(begun):
  config, experiment, _ = begun
  other = dataclasses.replace(experiment, train=dataclasses.replace(experiment.train, batch_size=3))
  with pytest.raises(ConfigError, match=r'^config.batch_size=\d+: but the training examples come in batches of 3'):
    next(train(config, experiment=other))


def test_what_the_loop_alone_reads_may_be_changed_after_the_experiment_is_built(begun):
  config, experiment, _ = begun
  with contextlib.closing(
    train(dataclasses.replace(config, log_every=3, keep_best=0), experiment=experiment)
  ) as records:
    assert next(records).status == 'compiling'


def test_an_experiment_of_a_class_derived_from_the_configs_is_refused(begun):
  config, _, _ = begun

  class Other(type(config)):
    def build(self):
      return super().build()

  other = Other(**vars(config))
  with pytest.raises(ConfigError, match='config: is a .*Config, but the experiment was built from a .*Other'):
    next(train(config, experiment=other.build()))
  with contextlib.closing(train(other)) as records:
    assert next(records).status == 'compiling'


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
    list(train(config, tmp_path / 'run', experiment=changed))
  assert caught.value.exit_code == 3 and (tmp_path / 'run' / 'metrics.jsonl').read_bytes() == lines
  (start,) = json.loads((tmp_path / 'run' / 'environment.json').read_text())
  assert start['data'] == {name: other.examples.fingerprint() for name, other in owners.items()}
  before = content(tmp_path)
  line, code = told(lambda: list(train(config, tmp_path / 'run', experiment=changed)))
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
  assert list(train(config, tmp_path / 'run', experiment=experiment))[-1].status == 'done'
  assert json.loads((tmp_path / 'run' / 'result.json').read_text())['changes'] == {}


@pytest.fixture(scope='module')
def begun(tmp_path_factory):
  """A run of five steps: config, experiment and workdir."""
  config, run = make('classifier', steps=5), tmp_path_factory.mktemp('begun') / 'run'
  experiment = config.build()
  list(train(config, run, experiment=experiment))
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


def test_a_folder_is_in_use_while_its_lock_is_held(tmp_path):
  assert not in_use(tmp_path)
  with take(tmp_path, 'workdir', 'run'):
    assert in_use(tmp_path)
  assert not in_use(tmp_path)
