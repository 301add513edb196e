"""Numbers of the description against sums done by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from jax.sharding import NamedSharding, PartitionSpec
from runs import make

from launch import describe
from research.data.examples import Arrays
from research.data.source import Source
from research.objectives.regression import mean_squared_error
from research.parallel.mesh import MeshShape, make_mesh
from research.tasks.supervised import supervised
from research.train.config import Config
from research.train.experiment import Experiment
from research.train.optimizer import make_optimizer


class Linear(nn.Module):
  @nn.compact
  def __call__(self, inputs, train=False):
    return nn.Dense(3, name='dense')(inputs)


class Tiny(Config):
  """Ten inputs, one dense layer of three outputs, batches of eight."""

  def build(self):
    arrays = {'inputs': np.ones((32, 10), np.float32), 'targets': np.ones((32, 3), np.float32)}
    task = supervised(Linear(), mean_squared_error(), make_optimizer(self.optimizer, self.steps))
    return Experiment(task, Source(Arrays(arrays), self.batch_size))


def test_a_description_adds_up(monkeypatch, capsys):
  monkeypatch.setattr(describe, 'CONFIG', type('Flag', (), {'value': Tiny(batch_size=8)}))
  describe.main()
  lines = [line.split() for line in capsys.readouterr().out.splitlines()]
  assert ['dense/bias', '(3,)', 'float32', '3', '12', '12', 'replicated'] in lines
  assert ['dense/kernel', '(10,', '3)', 'float32', '30', '120', '120', 'replicated'] in lines
  assert ['total', '33', '132', '132'] in lines
  text = {line[0]: ' '.join(line) for line in lines if line}
  # step, parameters, two moments of each, two counts of Adam
  assert text['State:'].startswith(f'State: {4 + 132 + 2 * 132 + 2 * 4} bytes, of which step 4 bytes, params 132 bytes')
  assert text['Batch:'] == f'Batch: {8 * (10 + 3 + 1) * 4} bytes in 8 examples, over {jax.device_count()} device(s)'
  # forward, and the gradient of the kernel: 8 x 10 x 3 multiply-adds each
  assert text['Step:'].startswith('Step: 960 operations') and text['Step:'].endswith('120 per example')
  assert 'temporary' in text['Memory']


def test_an_agent_is_described_without_examples(monkeypatch, capsys):
  monkeypatch.setattr(describe, 'CONFIG', type('Flag', (), {'value': make('agent')}))
  describe.main()
  text = capsys.readouterr().out
  assert 'memory 128 bytes' in text and 'Batch: 128 bytes in 32 examples' in text  # a cell and a number for each


def test_sharding_is_shown():
  mesh = make_mesh(MeshShape(), jax.device_count())
  split = jax.ShapeDtypeStruct((8, 2), jnp.bfloat16, sharding=NamedSharding(mesh, PartitionSpec('data')))
  row = describe.parameter_table({'w': split}).splitlines()[1]
  assert row.split(None, 7) == ['w', '(8,', '2)', 'bfloat16', '16', '32', '4', 'data']  # of eight devices


def test_a_batch_that_devices_cannot_share_is_refused(monkeypatch):
  monkeypatch.setattr(describe, 'CONFIG', type('Flag', (), {'value': Tiny(mesh=MeshShape(10_000))}))
  with pytest.raises(Exception, match='10000 devices'):
    describe.main()
