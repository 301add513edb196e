"""What a model carries from batch to batch: a part of the State, split as the batch is, the same on any mesh."""

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from launch.flags import load_config
from research.data.windows import Streams, stream_examples
from research.models.language import LanguageModel, Stream
from research.models.rnn import RNN
from research.objectives.language import next_token
from research.parallel.layout import layout
from research.parallel.mesh import MeshShape, make_mesh
from research.tasks.supervised import supervised
from research.train import recorder
from research.train.loop import train
from research.train.optimizer import Optimizer

CONFIG = Path(__file__).parents[1] / 'configs' / 'stream.py'
MESHES = [MeshShape(8), MeshShape(2, 2, 2), MeshShape(8, backend='pmap')]


def make(**changes):
  """The stream of the tests, without saves and with an optimizer that lets no rounding grow."""
  quiet = {'steps': 20, 'log_every': 20, 'eval_every': 0, 'checkpoint_every': 0}
  return dataclasses.replace(
    load_config(str(CONFIG)), **{**quiet, 'optimizer': Optimizer('momentum', lr=0.05), **changes}
  )


@pytest.fixture(scope='module')
def alone():
  return list(train(make(dropout_rate=0.0)))[-1]


@pytest.mark.parametrize('mesh', MESHES, ids=str)
def test_every_mesh_ends_where_one_device_does(mesh, alone):
  config = make(mesh=mesh, dropout_rate=0.0)  # each device of pmap draws a mask of its own
  last = list(train(config))[-1]
  for leaf in jax.tree.leaves(last.state.memory['carry']):
    assert leaf.sharding.spec[0] == ('data' if mesh.axis_name else ('data', 'fsdp'))
    assert leaf.addressable_shards[0].data.shape == (8 // (mesh.data * mesh.fsdp), 16)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-6), last.state, alone.state)
  for name, value in alone.metrics.items():
    np.testing.assert_allclose(last.metrics[name], value, rtol=1e-5, err_msg=name)


def test_a_run_goes_on_on_another_mesh(tmp_path):
  config = make(log_every=1, checkpoint_every=5, steps=15)
  list(train(config, tmp_path / 'alone'))
  for steps, mesh in ((5, MeshShape(8)), (15, MeshShape(2, 2))):
    part = dataclasses.replace(config, steps=steps, mesh=mesh)
    list(train(part, tmp_path / 'moved'))
  losses = [
    [line['train/loss'] for line in recorder.read(tmp_path / run) if 'train/loss' in line] for run in ('alone', 'moved')
  ]
  np.testing.assert_allclose(losses[0], losses[1], rtol=1e-5)


def test_a_batch_that_the_devices_do_not_share_evenly_is_carried_whole():
  experiment, key = make().build(), jax.random.key(0)
  batch = experiment.train.examples.rows(np.arange(6))
  place = layout(experiment.task.init, make_mesh(MeshShape(8), 0), key, batch)
  assert not any(any(leaf.spec) for leaf in jax.tree.leaves(place.memory['carry']))


def test_the_carry_is_what_reading_the_rows_from_their_beginning_leaves():
  tokens = np.arange(100) * 7 % 11
  source = Streams(stream_examples([tokens], 3, 8), 3)  # four windows a row
  model = LanguageModel(11, RNN(6), 4)

  def preprocess(batch):
    return {**batch, 'inputs': Stream(batch['inputs'], batch['reset'])}

  task = supervised(model, next_token(), optax.sgd(0.0), preprocess)
  batches = [jax.tree.map(jnp.asarray, source.examples.rows(source.indices(step))) for step in range(7)]
  state, key = task.init(jax.random.key(0), batches[0]), jax.random.key(1)
  take = jax.jit(task.train_step)
  for step, batch in enumerate(batches):
    state = take(state, batch, key)[0]
    rows = jnp.concatenate([earlier['inputs'] for earlier in batches[step - step % 4 : step + 1]], 1)
    carry = model.apply({'params': state.params}, rows, model.rnn.initial_carry(3), method='advance')[1]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), state.memory['carry']['rnn'], carry)
