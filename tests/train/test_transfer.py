"""A run that starts from another one: what it takes, that it needs the other no more, and what cannot be taken."""

import contextlib
import dataclasses
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from runs import content, make, outcome

from research.errors import CheckpointError, ConfigError, WorkdirError
from research.parallel.mesh import MeshShape
from research.tasks.base import State
from research.train import transfer
from research.train.config import Config
from research.train.loop import train
from research.train.optimizer import Optimizer

SHAPE = (2, 3)


def unmeasured(config: Config):
  """The config's experiment without evaluations, so that its steps alone are compiled."""
  return dataclasses.replace(config.build(), evaluators={}, final_evaluators={})


def run(config: Config, workdir) -> State:
  """The last State of a run, once it has one."""
  *_, last = train(config, workdir, experiment=unmeasured(config))
  return last.state


def first_state(config: Config, workdir) -> State:
  """What a run begins with; it is abandoned after a few steps, with this alone saved."""
  with contextlib.closing(train(config, workdir, experiment=unmeasured(config))) as records:
    state = jax.tree.map(jnp.copy, next(record for record in records if record.status == 'saving').state)
    next(records)
  return state


def assert_equal(found, wanted):
  jax.tree.map(np.testing.assert_array_equal, found, wanted)


@pytest.fixture(scope='module')
def source(tmp_path_factory):
  """Workdir of a run of three steps with batch norm and averages, and its last State."""
  folder = tmp_path_factory.mktemp('source')
  state = run(make('regularized', steps=3), folder)
  return folder, jax.tree.map(np.asarray, state)


def test_fine_tuning_starts_from_another_run_and_then_needs_it_no_more(source, tmp_path):
  """Parameters, statistics and averages are taken, the optimizer is new; the other run is deleted before a resume."""
  folder, old = source
  other = shutil.copytree(folder, tmp_path / 'other')
  tuned = make('regularized', steps=6, seed=7, init_from=str(other))
  before = content(other)
  state = first_state(tuned, tmp_path / 'resumed')
  assert content(other) == before and state.step == 0
  for part in ('params', 'mutable', 'ema'):
    assert_equal(getattr(state, part), getattr(old, part))
  assert not any(leaf.any() for leaf in jax.tree.leaves(state.opt_state))
  (start,) = json.loads((tmp_path / 'resumed' / 'environment.json').read_text())
  result = json.loads((folder / 'result.json').read_text())
  assert (start['init_from']['step'], start['init_from']['state_sha256']) == (3, result['state_sha256'])
  assert len(start['init_from']['taken']) == len(jax.tree.leaves((old.params, old.mutable, old.ema)))
  assert start['init_from']['new'] == start['init_from']['left'] == []
  run(tuned, tmp_path / 'alone')
  shutil.rmtree(other)
  assert [path.name for path in (tmp_path / 'resumed' / 'checkpoints').iterdir() if path.name.isdecimal()] == ['0']
  run(dataclasses.replace(tuned, init_from=''), tmp_path / 'resumed')
  assert outcome(tmp_path / 'resumed') == outcome(tmp_path / 'alone')


def test_what_is_frozen_starts_from_what_the_other_run_was_evaluated_with(source, tmp_path):
  folder, old = source
  config = make('regularized', optimizer=Optimizer('adam', freeze=('norm_0/*',)), init_from=str(folder))
  state = first_state(config, tmp_path)
  for collection, modules in state.frozen.items():
    assert_equal(modules['norm_0'], old.ema[collection]['norm_0'])
  assert set(state.frozen) == {'params', 'batch_stats'} and 'norm_0' not in state.params
  assert_equal(state.params, {name: tree for name, tree in old.params.items() if name != 'norm_0'})


def test_meshes_of_the_two_runs_may_differ(tmp_path):
  config = make('classifier', steps=1, optimizer=Optimizer('adam'), mesh=MeshShape(4, 2))
  old = run(config, tmp_path / 'old')
  tuned = dataclasses.replace(config, seed=7, mesh=MeshShape(2, 4), init_from=str(tmp_path / 'old'))
  state = first_state(tuned, tmp_path / 'tuned')
  kernel = state.params['dense_0']['kernel']
  assert dict(kernel.sharding.mesh.shape) == {'data': 2, 'fsdp': 4, 'tensor': 1} and 'fsdp' in kernel.sharding.spec
  assert_equal(state.params, old.params)


def arrays(*names: str, shape=SHAPE) -> dict[str, np.ndarray]:
  return {name: np.full(shape, number, np.float32) for number, name in enumerate(names)}


def state_of(params=(), mutable=(), ema=(), frozen=(), shape=SHAPE) -> State:
  """A State of abstract leaves, each part given by the paths of its leaves."""

  def tree(names):
    nested: dict = {}
    for name in names:
      *rooms, last = name.split('/')
      inner = nested
      for room in rooms:
        inner = inner.setdefault(room, {})
      inner[last] = jax.ShapeDtypeStruct(shape, jnp.float32)
    return nested

  return State(None, tree(params), tree(mutable), {}, tree(['count']), tree(ema), tree(frozen))


def taken(names, state, *init_map) -> dict[str, str]:
  found = transfer.plan(transfer.Source('w', 3, arrays(*names)), state, init_map)
  return {str(leaf): str(origin) for leaf, origin in found.origins.items()}


def test_paths_are_the_same_unless_they_are_mapped():
  there = ('step', 'opt_state/a/k', 'params/a/k', 'params/b/k', 'mutable/batch_stats/a/m', 'mutable/loss_scale/counter')
  state = state_of(['a/k', 'c/k'], ['batch_stats/a/m', 'batch_stats/c/m', 'loss_scale/counter'])
  found = transfer.plan(transfer.Source('w', 3, arrays(*there)), state, ())
  assert {str(leaf): str(origin) for leaf, origin in found.origins.items()} == {
    'params/a/k': 'params/a/k',
    'mutable/batch_stats/a/m': 'mutable/batch_stats/a/m',
  }
  assert list(map(str, found.new)) == ['params/c/k', 'mutable/batch_stats/c/m']
  assert list(map(str, found.left)) == ['params/b/k']


@pytest.mark.parametrize(
  ('init_map', 'wanted'),
  [
    (('a/*=c/*',), {'params/c/x/k': 'params/a/x/k', 'mutable/batch_stats/c/m': 'mutable/batch_stats/a/m'}),
    (('*/x/*=*/y/*',), {'params/c/y/k': 'params/c/x/k'}),
    (('a/x/k=c/x/k', 'c/*=c/*'), {'params/c/x/k': 'params/a/x/k'}),
    (('c/*=c/*', 'a/x/k=c/x/k'), {'params/c/x/k': 'params/c/x/k'}),
    (('a.x/k=c/x/k', 'a/*=c/*'), ConfigError),
  ],
)
def test_globs_say_which_path_goes_where(init_map, wanted):
  """The first entry that has something for a path counts; only an asterisk stands for other text."""
  there = ('params/a/x/k', 'params/c/x/k', 'mutable/batch_stats/a/m')
  state = state_of(['c/x/k', 'c/y/k'], ['batch_stats/c/m'])
  if wanted is ConfigError:
    with pytest.raises(ConfigError):
      taken(there, state, *init_map)
  else:
    assert taken(there, state, *init_map) == wanted


def test_averages_and_frozen_parts_take_what_there_is():
  """A run without averages gives parameters for them; what is frozen takes the averages, which were evaluated."""
  state = state_of(['a/k'], ['batch_stats/a/m'], ['params/a/k', 'batch_stats/a/m'])
  plain = ('params/a/k', 'mutable/batch_stats/a/m')
  assert taken(plain, state)['ema/params/a/k'] == 'params/a/k'
  assert taken(plain, state)['ema/batch_stats/a/m'] == 'mutable/batch_stats/a/m'
  averaged = (*plain, 'ema/params/a/k', 'ema/batch_stats/a/m')
  assert taken(averaged, state)['ema/params/a/k'] == 'ema/params/a/k'
  assert taken(averaged, state)['params/a/k'] == 'params/a/k'
  student = state_of(['a/k'], frozen=['params/teacher/a/k', 'batch_stats/teacher/a/m'])
  assert taken(averaged, student, '*=teacher/*') == {
    'frozen/params/teacher/a/k': 'ema/params/a/k',
    'frozen/batch_stats/teacher/a/m': 'ema/batch_stats/a/m',
  }


@pytest.mark.parametrize(
  ('init_map', 'message'),
  [
    ((), 'config.init_from=w: has none of the paths of this model; nearest: encoder/k; see init_map'),
    (('encodr/*=backbone/*',), "config.init_map: 'encodr/*=backbone/*': w has nothing at encodr/*; nearest: encoder/k"),
    (('encod_*=backbone*',), "config.init_map: 'encod_*=backbone*': w has nothing at encod_*; nearest: encoder"),
    (('encoder/*=bakbone/*',), 'this model has nothing at bakbone/*; nearest: backbone/k'),
    (('encoder/k/*=backbone/k*',), 'w has nothing at encoder/k/*; nearest: encoder/k'),
    (('encoder/*z=backbone/*z', 'encoder/*=backbone/*'), 'w has nothing at encoder/*z; nearest: encoder/k'),
  ],
)
def test_a_glob_that_takes_nothing_is_told_with_the_nearest_paths(init_map, message, told, fault):
  line, code = told(lambda: taken(['params/encoder/k'], state_of(['backbone/k']), *init_map))
  assert message in line
  if 'bakbone' in message:
    fault('a path in `config.init_map` that nothing has', line, code, 'nothing is started')


@pytest.mark.parametrize(
  ('fields', 'message'),
  [
    ({'init_map': ('a/*',), 'init_from': 'w'}, r"config\.init_map.*'a/\*' must be SOURCE=TARGET"),
    ({'init_map': ('a/*=b',), 'init_from': 'w'}, 'as many'),
    ({'init_map': ('a=b=c',), 'init_from': 'w'}, 'must be SOURCE=TARGET'),
    ({'init_map': ('a=b',)}, r'needs the workdir of another run in config\.init_from'),
  ],
)
def test_maps_that_cannot_be(fields, message):
  with pytest.raises(ConfigError, match=message):
    Config(**fields).validate()


def test_a_leaf_of_another_shape_is_told_before_anything_is_written(source, tmp_path, told, fault):
  folder, _ = source
  wider = make('regularized', width=5, init_from=str(folder))
  line, code = told(lambda: run(wider, tmp_path / 'run'))
  assert not (tmp_path / 'run' / 'config.json').exists()
  fault('`config.init_from`, a model of other shapes', line.replace(str(folder), 'W'), code, 'nothing is started')


def test_a_workdir_without_a_checkpoint_is_told_before_data_are_fetched(tmp_path, monkeypatch, told, fault):
  config = make('classifier', init_from=str(tmp_path / 'other'))
  monkeypatch.setattr(type(config), 'build', lambda config: pytest.fail('data were fetched'))
  line, code = told(lambda: next(train(config, tmp_path / 'run')))
  fault('`config.init_from`, a folder without a checkpoint', line, code, 'nothing is started')


def test_another_start_is_refused_until_there_is_a_checkpoint(source, tmp_path):
  folder, _ = source
  with contextlib.closing(train(make('regularized', init_from=str(folder)), tmp_path)) as records:
    next(record for record in records if record.status == 'saving')  # is about to save
  with pytest.raises(WorkdirError, match=r'init_from: .* there,  now'):
    next(train(make('regularized'), tmp_path))


def test_the_newest_checkpoint_that_is_not_damaged_is_taken(source, tmp_path, caplog):
  folder = shutil.copytree(source[0], tmp_path / 'other')
  shutil.copytree(folder / 'checkpoints' / '3', folder / 'checkpoints' / '9')
  (folder / 'checkpoints' / '9' / 'damage').touch()
  assert transfer.read_source(folder).step == 3
  shutil.rmtree(folder / 'checkpoints' / '3')
  with pytest.raises(CheckpointError, match='has no usable checkpoint'):
    transfer.read_source(folder)
