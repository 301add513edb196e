"""The same numbers on any mesh and either back end, and what of the State lies where."""

import dataclasses
import functools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn
from runs import drain, make, untold

from research import random
from research.data.examples import Arrays
from research.errors import ConfigError
from research.metrics import mean
from research.models.attention import SelfAttention
from research.models.mlp import MLP
from research.objectives.base import couples_examples
from research.objectives.classification import softmax_cross_entropy
from research.ops.layers import Dense, Embed
from research.parallel.layout import abstract, bytes_per_device, layout
from research.parallel.mesh import MeshShape, make_mesh
from research.parallel.placement import InFlight
from research.tasks.base import State
from research.tasks.descend import Compute
from research.tasks.supervised import supervised
from research.train import recorder
from research.train.loop import train
from research.train.optimizer import Optimizer
from research.types import Aux

MESHES = {
  'data 8': MeshShape(8),
  'fsdp 8': MeshShape(1, 8),
  'data 2 x fsdp 2 x tensor 2': MeshShape(2, 2, 2),
  'pmap 8': MeshShape(8, backend='pmap'),
}
ALONE = MeshShape(1)
TASKS = {'regularized': 'classifier with batch norm', 'ring': 'toy GAN', 'agent': 'toy actor-critic'}
NOISY = ('regularized', 'ring')  # drop units
CHANGES = {
  'regularized': {'width': 16, 'optimizer': Optimizer('momentum', lr=0.05, l2=1e-3), 'ema_decay': 0.9},
  'ring': {'optimizer': Optimizer('momentum', lr=0.01), 'critic_steps': 1},
  'agent': {},
}


def quiet(name: str, **changes):
  """A config of the tests, with few evaluations and saves."""
  return make(name, **{'steps': 20, 'log_every': 20, 'eval_every': 0, 'checkpoint_every': 0, **changes})


@functools.cache
def end(name: str, mesh: str, double: bool, **changes) -> list[np.ndarray]:
  """Leaves of the State after 20 steps and its losses in evaluation; `double`: in float64."""
  config = quiet(name, mesh=MESHES.get(mesh, ALONE), **CHANGES[name], **changes)
  with jax.enable_x64(double):
    experiment = config.build()
    if double:
      experiment = dataclasses.replace(experiment, task=experiment.task._replace(init=doubled(experiment.task.init)))
    last = drain(config, experiment=experiment)[-1]
    assert len(jax.tree.leaves(last.state)[0].sharding.device_set) == (8 if mesh in MESHES else 1)
    losses = [value for metric, value in last.metrics.items() if metric.endswith('loss')]
    return [*map(np.asarray, jax.tree.leaves(last.state)), np.array(losses)]


def doubled(init):
  def to_double(leaf):
    return leaf.astype(jnp.float64) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf

  return lambda key, batch: jax.tree.map(to_double, init(key, batch))


CASES = [
  *((name, mesh, True) for name in CHANGES for mesh in MESHES),
  ('regularized', 'data 2 x fsdp 2 x tensor 2', False),
]


@pytest.mark.parametrize(('name', 'mesh', 'double'), CASES)
def test_every_mesh_ends_where_one_device_does(name, mesh, double, documented):
  noisy = name in NOISY and 'pmap' not in mesh  # there each device draws a dropout mask of its own
  changes = {'dropout_rate': 0.0} if name in NOISY and not noisy else {}
  pairs = list(zip(end(name, mesh, double, **changes), end(name, 'alone', double, **changes), strict=True))
  differences = [np.abs(leaf - alone).max() / (1 if double else max(np.abs(alone).max(), 0.1)) for leaf, alone in pairs]
  assert max(differences) <= (1e-9 if double else 1e-5)
  row = {
    'task and mesh': f'{TASKS[name]}, {mesh}, {"float64" if double else "float32"}',
    'largest difference': f'{max(differences):.0e}',
    'of': 'the number itself' if double else "its leaf's largest entry",
    'dropout': 'on' if noisy else 'off',
  }
  documented('meshes', row, loose=['largest difference'])


@pytest.mark.parametrize('mesh', ['pmap 8', 'data 2 x fsdp 2 x tensor 2'])
def test_steps_that_count_nothing_change_nothing(mesh):
  config = quiet('classifier', steps=6, log_every=2, mesh=MESHES[mesh])
  experiment = dataclasses.replace(config.build(), final_evaluators={})
  arrays, source = experiment.train.examples.arrays, experiment.train
  mask = np.ones(len(source.examples), np.float32)
  mask[np.concatenate([source.indices(step) for step in range(2, 6)])] = 0
  source = dataclasses.replace(source, examples=Arrays({**arrays, 'mask': mask}))
  logged, states = {}, []
  for record in train(config, experiment=dataclasses.replace(experiment, train=source)):
    if record.metrics:
      logged[record.step] = record.metrics.get('train/loss')
      states.append(jax.device_get((record.state.params, record.state.opt_state)))
  jax.tree.map(np.testing.assert_array_equal, *states[:2])  # after steps 3 and 5, told with the metrics of 2 and 4
  assert logged[2] > 0 and logged[4] is logged[6] is None


def test_each_device_of_pmap_draws_dropout_of_its_own():
  key = jax.random.key(0)
  draw = jax.pmap(lambda _: jax.random.bits(random.per_device(key, 'data')), axis_name='data')
  assert len(set(draw(jnp.zeros(8)).tolist())) == 8
  assert random.per_device(key, '') is key


def state_on(mesh: MeshShape, task, batch) -> State:
  """Shapes and layout of a task's State."""
  key = jax.random.key(0)
  return abstract(jax.eval_shape(task.init, key, batch), layout(task.init, make_mesh(mesh, 8), key, batch))


def specs(tree) -> dict[str, tuple]:
  """What each leaf is split along, an entry an axis."""
  leaves = jax.tree.leaves_with_path(tree)
  return {jax.tree_util.keystr(path, simple=True, separator='/'): tuple(leaf.sharding.spec) for path, leaf in leaves}


def perceptron(**options):
  batch = {'inputs': jnp.zeros((8, 64)), 'targets': jnp.zeros(8, jnp.int32)}
  return supervised(MLP((128, 128), 10), softmax_cross_entropy(), optax.adam(1e-3), ema_decay=0.9, **options), batch


def test_under_fsdp_a_device_holds_an_eighth_of_the_state():
  config = quiet('classifier', mesh=MESHES['fsdp 8'], steps=1, width=256, optimizer=Optimizer('adam'), ema_decay=0.9)
  state = untold(config).state
  held, whole = 0, sum(leaf.nbytes for leaf in jax.tree.leaves(state))
  for leaf in jax.tree.leaves(state):
    held += next(shard.data.nbytes for shard in leaf.addressable_shards if shard.device == jax.devices()[0])
  assert held <= (1 / 8 * 1.1) * whole
  assert held == sum(map(bytes_per_device, jax.tree.leaves(state)))


def test_under_fsdp_a_device_is_to_hold_an_eighth_of_a_state_with_batch_statistics():
  experiment = quiet('regularized', width=32, optimizer=Optimizer('adam')).build()
  index = np.arange(8)
  state = state_on(MESHES['fsdp 8'], experiment.task, {**experiment.train.examples.rows(index), 'index': index})
  whole = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state))
  assert sum(map(bytes_per_device, jax.tree.leaves(state))) <= (1 / 8 * 1.1) * whole


def test_moments_and_averages_lie_as_their_parameters_do():
  task, batch = perceptron()
  found = specs(state_on(MeshShape(2, 2, 2), task, batch))
  assert found['params/dense_0/kernel'] == (None, ('tensor', 'fsdp'))
  assert found['params/dense_0/bias'] == ('tensor',) and found['params/head/kernel'] == (None, 'tensor')
  assert found['step'] == ()
  for name, axes in found.items():
    parameter = 'params/' + '/'.join(name.split('/')[-2:])
    assert axes == found.get(parameter, axes), name


def test_frozen_parameters_lie_as_trained_ones_do():
  task, batch = perceptron()
  frozen = specs(state_on(MeshShape(2, 2, 2), perceptron(frozen=('*1/*',))[0], batch).frozen)
  trained = specs(state_on(MeshShape(2, 2, 2), task, batch))
  assert frozen == {name: axes for name, axes in trained.items() if name in frozen} and len(frozen) == 2


def test_both_players_of_a_game_are_split():
  experiment = make('ring').build()
  batch = {'inputs': jnp.zeros((8, 2)), 'index': jnp.zeros(8, jnp.int32)}
  found = specs(state_on(MeshShape(2, 2, 2), experiment.task, batch))
  split = [name for name, axes in found.items() if axes == (None, ('tensor', 'fsdp'))]
  assert len(split) == 4 * 2  # the middle kernel of two players, two moments and the average of each
  assert all(name.endswith('dense_1/kernel') for name in split)


def test_what_does_not_divide_evenly_stays_whole():
  task, batch = perceptron()
  found = specs(state_on(MeshShape(1, 1, 8), task, batch))
  assert found['params/dense_1/kernel'] == (None, 'tensor') and found['params/head/kernel'] == (None, None)


class Tokens(nn.Module):
  """Classes of sequences of tokens."""

  @nn.compact
  def __call__(self, inputs, train=False):
    x = Embed(32, 16, name='embed')(inputs)
    return Dense(4, name='head')(SelfAttention(4, name='attention')(x, train=train).mean(1))


def test_attention_and_embeddings_are_split_and_give_the_same_gradient():
  batch = {'inputs': jnp.arange(48).reshape(8, 6) % 32, 'targets': jnp.arange(8) % 4}
  task, key = supervised(Tokens(), softmax_cross_entropy(), optax.sgd(1.0)), jax.random.key(0)
  shapes = state_on(MeshShape(2, 1, 4), task, batch)
  found = specs(shapes.params)
  assert found['embed/embedding'] == ('tensor', None)
  assert found['attention/query/kernel'] == (None, 'tensor', None)
  assert found['attention/out/kernel'] == ('tensor', None, None)
  state, step = jax.jit(task.init)(key, batch), jax.jit(task.train_step)
  place = jax.tree.map(lambda leaf: leaf.sharding, shapes)
  alone, split = (step(start, batch, key)[0] for start in (state, jax.device_put(state, place)))
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), split.params, alone.params)


def losses(workdir: Path) -> np.ndarray:
  return np.array([line['train/loss'] for line in recorder.read(workdir) if 'train/loss' in line])


@pytest.mark.parametrize('name', CHANGES)
def test_a_run_goes_on_on_another_mesh(name, tmp_path, fault):
  config = quiet(name, log_every=1, checkpoint_every=5, steps=15, **CHANGES[name])
  untold(config, tmp_path / 'alone')
  for steps, mesh in ((5, MeshShape(8)), (10, ALONE), (15, MeshShape(2, 2, 2))):
    last = untold(dataclasses.replace(config, steps=steps, mesh=mesh), tmp_path / 'moved')
    assert len(jax.tree.leaves(last.state)[0].sharding.device_set) == mesh.data * mesh.fsdp * mesh.tensor
  np.testing.assert_allclose(losses(tmp_path / 'moved'), losses(tmp_path / 'alone'), rtol=1e-5)
  fault('another number of devices on resume', '', 0, 'all; the same losses to 1e-5')


@pytest.mark.parametrize(
  ('mesh', 'batch_size', 'message'),
  [
    (MeshShape(0), 8, 'config.mesh.data=0: must be at least 1, or -1'),
    (MeshShape(-1, -1), 8, 'config.mesh: two axes are -1'),
    (MeshShape(3, 3), 9, 'config.mesh: data 3 x fsdp 3 x tensor 1 makes 9 devices, and there are 8'),
    (MeshShape(-1, 16), 16, 'config.mesh: data 1 x fsdp 16 x tensor 1 makes 16 devices, and there are 8'),
    (MeshShape(-2), 8, 'config.mesh.data=-2: must be at least 1, or -1'),
    (MeshShape(2, 2, 2), 6, r'config.batch_size=6: must be a multiple of the 4 devices \(data x fsdp\)$'),
    (MeshShape(backend='pjit'), 8, "config.mesh.backend='pjit': must be one of jit, pmap"),
    (MeshShape(4, 2, backend='pmap'), 8, 'config.mesh.backend=pmap: shards the batch only'),
  ],
)
def test_a_mesh_that_cannot_be_is_refused(mesh, batch_size, message):
  with pytest.raises(ConfigError, match=message):
    make_mesh(mesh, batch_size)


def test_devices_share_each_micro_batch():
  with pytest.raises(ConfigError, match=r'config.batch_size=32: must be a multiple of the 4 devices .* x 16 micro'):
    make_mesh(MeshShape(4), 32, accumulate=16)
  assert make_mesh(MeshShape(4), 32, accumulate=8).size == 4


def test_the_rest_of_the_devices():
  assert dict(make_mesh(MeshShape(), 8).shape) == {'data': 8, 'fsdp': 1, 'tensor': 1}
  assert dict(make_mesh(MeshShape(2, -1, 2), 8).shape) == {'data': 2, 'fsdp': 2, 'tensor': 2}
  assert make_mesh(MeshShape(2), 8).size == 2


def test_pmap_refuses_an_objective_that_couples_examples():
  @couples_examples
  def contrastive(model, variables, batch, key, train):
    return mean(jnp.zeros(2)), Aux({}, {})

  supervised(MLP((4,), 2), contrastive, optax.sgd(0.1))
  with pytest.raises(ConfigError, match='pmap: contrastive couples the examples of a batch; use jit'):
    supervised(MLP((4,), 2), contrastive, optax.sgd(0.1), compute=Compute(axis_name='data'))


@pytest.mark.parametrize('name', ['transcriber', 'translator', 'forecaster'])
def test_eight_devices_take_the_steps_of_one(name):
  config = quiet(name, optimizer=Optimizer('sgd', lr=0.1))
  states = [drain(dataclasses.replace(config, mesh=MeshShape(devices)))[-1] for devices in (1, 8)]
  one, eight = (record.state.params for record in states)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), one, eight)
  assert len(jax.tree.leaves(eight)[0].sharding.device_set) == 8
  for name, value in states[0].metrics.items():
    np.testing.assert_allclose(states[1].metrics[name], value, rtol=1e-4, err_msg=name)


class Result:
  """A leaf that notes when it was waited for."""

  def __init__(self, name: int, waited: list[int]):
    self.name, self.waited = name, waited

  def block_until_ready(self):
    self.waited.append(self.name)


def test_the_host_runs_no_more_than_a_few_computations_ahead():
  in_flight, waited = InFlight(), []
  for number in range(40):
    in_flight.add(Result(number, waited))
    assert waited == list(range(number + 1 - 16))


def test_steps_with_collectives_that_nobody_waits_for_come_to_an_end():
  """XLA would deadlock with 32 of them in flight, and end this process."""
  last = untold(quiet('classifier', steps=150, log_every=150, mesh=MeshShape(8), width=512))
  assert last.step == 150
