"""Micro-batches against the whole batch: the same step under uneven masks, whose rows they are, batch norm."""

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from launch.flags import load_config
from research import random
from research.metrics import Mean, mean
from research.models.cnn import ConvNet
from research.models.mlp import MLP
from research.objectives.classification import softmax_cross_entropy
from research.objectives.regression import mean_squared_error
from research.tasks.accumulate import accumulated
from research.tasks.adversarial import adversarial
from research.tasks.base import State, Totals, moved
from research.tasks.descend import Compute
from research.tasks.supervised import supervised
from research.train.optimizer import Optimizer
from research.types import Aux

CONFIGS = Path(__file__).parents[1] / 'configs'
KEY = jax.random.key(0)
MASK = np.array([1, 0, 1, 1, 1, 0, 0, 1, 0, 0, 1, 1, 1, 0, 1, 1], np.float64)
ALL_BUT_EVERY_SECOND = np.tile([1.0, 0.0], 8)  # the second of two micro-batches is all padding


def images(mask: np.ndarray, side: int = 6) -> dict:
  count = len(mask)
  inputs = np.random.default_rng(0).normal(size=(count, side, side, 1))
  return {'inputs': inputs, 'targets': np.arange(count) % 3, 'index': 40 + np.arange(count), 'mask': mask}


def wide(tree):
  return jax.tree.map(lambda leaf: leaf.astype(float) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf, tree)


def noisy(batch: dict, key: jax.Array) -> dict:
  """Noise of each example's own."""
  keys = random.per_example(key, batch['index'])
  return {
    **batch,
    'inputs': batch['inputs'] + jax.vmap(lambda k: jax.random.normal(k, batch['inputs'].shape[1:]))(keys),
  }


def after(task, data: dict, steps: int = 3):
  state = wide(task.init(KEY, data))
  for step in range(steps):
    state, metrics = jax.jit(task.train_step)(state, data, random.stream(KEY, 'train', step))
  return state, metrics


@pytest.mark.parametrize('mask', [MASK, ALL_BUT_EVERY_SECOND])
@pytest.mark.parametrize('micro_batches', [2, 8, 16])
def test_steps_are_those_of_the_whole_batch(micro_batches, mask, x64):
  def make(count):
    model, loss = ConvNet((4,), 3, (8,), norm='layer'), softmax_cross_entropy(0.1, class_weights=(1.0, 2.0, 5.0))
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(0.1, 0.9))
    return supervised(model, loss, optimizer, augment=noisy, ema_decay=0.9, compute=Compute(accumulate=count))

  ends = [after(make(count), images(mask)) for count in (1, micro_batches)]
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12), *ends)
  assert ends[1][1]['accuracy'].count == mask.sum()


@pytest.mark.parametrize('name', ['transcriber', 'translator'])
def test_sequences_take_the_steps_of_the_whole_batch(name):
  ends, first = [], None
  for count in (1, 4):
    changes = {'optimizer': Optimizer('momentum', lr=0.1), 'dropout_rate': 0.0, 'accumulate': count}
    experiment = dataclasses.replace(load_config(f'{CONFIGS / name}.py'), **changes).build()
    index = np.arange(16, dtype=np.int32)
    data = {**experiment.train.examples.rows(index), 'index': index, 'mask': MASK.astype(np.float32)}
    first = first or jax.jit(experiment.task.init)(KEY, data)
    state, step = first, jax.jit(experiment.task.train_step)
    for number in range(2):
      state, metrics = step(state, data, random.stream(KEY, 'train', number))
    ends.append((state, metrics))
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), *ends)


@pytest.mark.parametrize('micro_batches', [2, 8])
def test_two_players_take_the_steps_of_the_whole_batch(micro_batches, x64):
  def make(count):
    players = (MLP((8,), 2), MLP((8,), 1))
    return adversarial(
      *players, 3, optax.sgd(0.1, 0.9), optax.sgd(0.2, 0.9), critic_steps=2, compute=Compute(accumulate=count)
    )

  data = {'inputs': np.random.default_rng(0).normal(size=(16, 2)), 'index': 40 + np.arange(16), 'mask': MASK}
  ends = [after(make(count), data) for count in (1, micro_batches)]
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12), *ends)


def test_a_micro_batch_has_every_kth_row_and_a_number_of_its_own():
  def gradient(state, batch, key, number):
    seen_by = jnp.zeros((3, 12), jnp.int32).at[number, batch['index']].set(1)
    loss = Mean(batch['index'].sum(), jnp.int32(batch['index'].size))
    seen, rows = state.mutable['seen'] * 10 + number, state.memory['rows'] + batch['index'] * 10 + number
    return Totals(seen_by, loss, {}), moved(state, {'seen': seen, 'rows': rows})

  state = State(0, {}, {'seen': jnp.int32(0), 'other': jnp.int32(7)}, {'rows': jnp.arange(12) * 1000})
  totals, after = jax.jit(accumulated(gradient, 3))(state, {'index': np.arange(12)}, KEY)
  np.testing.assert_array_equal(after.memory['rows'], np.arange(12) * 1010 + np.arange(12) % 3)  # each row its own
  np.testing.assert_array_equal(totals.gradients, np.tile(np.eye(3), 4))
  assert totals.loss == (66, 12) and after.mutable == {'seen': 12, 'other': 7}


def test_dropout_has_a_key_for_each_micro_batch():
  def objective(model, variables, batch, key, train):
    return mean(jax.random.uniform(key) * batch['inputs'][:, 0]), Aux({}, {})

  data = {'inputs': np.ones((6, 1), np.float32), 'targets': np.zeros(6), 'index': np.arange(6)}
  for count in (1, 2, 3):
    task = supervised(MLP((), 1), objective, optax.sgd(0.1), compute=Compute(accumulate=count))
    total = task.train_step(task.init(KEY, data), data, KEY)[1]['loss'].total
    draws = [jax.random.uniform(random.stream(KEY, 'dropout', number)) for number in range(count)]
    np.testing.assert_allclose(total, 6 // count * np.sum(draws), rtol=1e-6)


def test_batch_norm_normalises_each_micro_batch_and_moves_once_for_each():
  class Normed(nn.Module):
    @nn.compact
    def __call__(self, inputs, train=False):
      return nn.Dense(1)(nn.BatchNorm(not train, momentum=0.9, name='norm')(inputs))

  inputs = np.random.default_rng(0).normal(2, 3, (12, 2)).astype(np.float32)
  data = {'inputs': inputs, 'targets': inputs[:, 0], 'index': np.arange(12)}
  means, losses = [], []
  for count in (1, 3):
    task = supervised(Normed(), mean_squared_error(), optax.sgd(0.1), compute=Compute(accumulate=count))
    state, metrics = task.train_step(task.init(KEY, data), data, KEY)
    expected = np.zeros(2)
    for number in range(count):
      expected = 0.9 * expected + 0.1 * inputs[number::count].mean(0)
    means.append(np.array(state.mutable['batch_stats']['norm']['mean']))
    losses.append(float(metrics['loss'].total))
    np.testing.assert_allclose(means[-1], expected, rtol=1e-5)
  assert np.abs(means[0] - means[1]).min() > 0.1 and abs(losses[0] / losses[1] - 1) > 1e-3


def compiled(accumulate: int, data: dict, sharding=None):
  task = supervised(
    ConvNet((8,), 3, (8,)), softmax_cross_entropy(), optax.sgd(0.1), compute=Compute(accumulate=accumulate)
  )
  state = jax.eval_shape(task.init, KEY, data)
  data = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), data)
  return jax.jit(task.train_step).lower(state, data, KEY).compile()


def test_no_row_moves_between_devices():
  mesh = jax.make_mesh((8,), ('data',), axis_types=(AxisType.Auto,))
  text = compiled(4, images(np.ones(64)), NamedSharding(mesh, PartitionSpec('data'))).as_text()
  assert 'all-reduce' in text
  assert not [name for name in ('all-gather', 'all-to-all', 'collective-permute') if name in text]


def test_micro_batches_take_less_memory():
  whole, parts = (compiled(count, images(np.ones(256), 16)).memory_analysis() for count in (1, 16))
  assert parts.temp_size_in_bytes < whole.temp_size_in_bytes / 4
