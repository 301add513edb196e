"""A supervised step against formulas: the gradient under a mask, averages, statistics, noise, what is frozen."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib
import pytest
from flax import linen as nn

from experiments.wiring import supervised_experiment
from research.data.examples import Arrays, Dataset
from research.errors import ConfigError
from research.metrics import mean
from research.models.norms import norm
from research.objectives.base import apply
from research.objectives.classification import softmax_cross_entropy
from research.objectives.ctc import ctc
from research.objectives.regression import mean_squared_error
from research.tasks.base import evaluation_variables
from research.tasks.descend import Compute
from research.tasks.network import Network, predictor
from research.tasks.supervised import supervised
from research.train.config import Config
from research.types import Aux

RATE = 0.1
KEY = jax.random.key(0)


class Linear(nn.Module):
  @nn.compact
  def __call__(self, inputs, train=False):
    return nn.Dense(1, name='dense')(inputs)


class Normed(nn.Module):
  outputs: int = 1

  @nn.compact
  def __call__(self, inputs, train=False):
    x = nn.BatchNorm(use_running_average=not train, momentum=0.9, name='norm')(inputs)
    return nn.Dense(self.outputs)(nn.Dropout(0.5)(x, deterministic=not train))


class Framed(nn.Module):
  """Logits of three classes for each of three frames."""

  @nn.compact
  def __call__(self, inputs, train=False):
    return nn.Dense(9)(inputs).reshape(-1, 3, 3)


def batch(count: int = 6, seed: int = 0, **more) -> dict:
  numbers = np.random.default_rng(seed)
  inputs = numbers.normal(size=(count, 3)).astype(np.float32)
  targets = numbers.normal(size=count).astype(np.float32)
  return {'inputs': inputs, 'targets': targets, 'index': np.arange(count, dtype=np.int32), **more}


@pytest.mark.parametrize('mask', [[1, 1, 1, 1, 1, 1], [1, 0, 1, 1, 0, 1], [0, 0, 0, 0, 0, 1]])
def test_a_step_descends_the_mean_over_the_real_examples(mask):
  task = supervised(Linear(), mean_squared_error(), optax.sgd(RATE))
  data = batch(mask=np.array(mask, np.float32))
  state = task.init(KEY, data)
  new, metrics = jax.jit(task.train_step)(state, data, KEY)

  kernel = np.array(state.params['dense']['kernel'], np.float64)
  real = np.flatnonzero(mask)
  x, y = data['inputs'][real], data['targets'][real, None]
  error = x @ kernel - y  # the bias begins at zero
  np.testing.assert_allclose(new.params['dense']['kernel'], kernel - RATE * 2 * x.T @ error / len(real), rtol=1e-5)
  np.testing.assert_allclose(new.params['dense']['bias'], -RATE * 2 * error.mean(0), rtol=1e-5)
  np.testing.assert_allclose(metrics['loss'].total, (error**2).sum(), rtol=1e-5)
  assert metrics['loss'].count == len(real) and new.step == 1


def classified(weights=(), **more):
  objective = softmax_cross_entropy(0.1, class_weights=weights)
  return Normed(3), objective, {'targets': np.arange(4, dtype=np.int32) % 2, **more}


def spelled(frames: int):
  lengths = {'lengths': np.full(4, frames, np.int32), 'target_lengths': np.full(4, 2, np.int32)}
  return Framed(), ctc(), {'targets': np.tile(np.int32([1, 1]), (4, 1)), **lengths}


NOTHING = {  # a model, an objective, a batch that counts and what makes it one that does not
  'masked': (*classified(mask=np.ones(4, np.float32)), {'mask': np.zeros(4, np.float32)}),
  'weighted': (*classified((1.0, 1.0, 0.0)), {'targets': np.full(4, 2, np.int32)}),
  'too short': (*spelled(3), {'lengths': np.full(4, 2, np.int32)}),
}


@pytest.mark.parametrize('name', NOTHING)
@pytest.mark.parametrize(('precision', 'accumulate'), [('float32', 1), ('float32', 2), ('float16', 1)])
def test_a_batch_that_counts_nothing_moves_nothing_but_the_step(precision, accumulate, name):
  model, objective, data, nothing = NOTHING[name]
  data = {**batch(4), **data}
  task = supervised(model, objective, optax.adamw(RATE), ema_decay=0.9, compute=Compute(precision, accumulate))
  step = jax.jit(task.train_step)
  state, _ = step(task.init(KEY, data), data, KEY)  # now momentum and averages are under way
  same, metrics = step(state, {**data, **nothing}, KEY)
  jax.tree.map(np.testing.assert_array_equal, same, state.replace(step=state.step + 1))
  assert metrics['loss'] == (0, 0)
  if name == 'masked':  # whatever a forward pass makes of what is masked
    spoiled, _ = step(state, {**data, **nothing, 'inputs': np.full((4, 3), np.nan, np.float32)}, KEY)
    jax.tree.map(np.testing.assert_array_equal, spoiled, same)
  moved, _ = step(same, data, KEY)
  changed = [(old != new).any() for old, new in zip(*map(jax.tree.leaves, (same, moved)), strict=True)]
  assert sum(changed) >= len(changed) - 2  # the loss scale and its counter


def test_padding_changes_nothing_whatever_it_holds():
  task = supervised(Linear(), mean_squared_error(), optax.adam(RATE))
  mask = np.array([1, 1, 1, 1, 0, 0], np.float32)
  steps = []
  for filler in (0, 1e3, np.nan):
    data = batch(mask=mask)
    data['inputs'][4:] = data['targets'][4:] = filler
    steps.append(task.train_step(task.init(KEY, data), data, KEY))
  for step in steps[1:]:
    jax.tree.map(np.testing.assert_array_equal, step, steps[0])


def test_averaged_parameters_follow_their_formula_and_are_those_evaluated():
  decay, data = 0.2, batch()
  task = supervised(Linear(), mean_squared_error(), optax.sgd(RATE), ema_decay=decay)
  state = task.init(KEY, data)
  average = np.array(state.params['dense']['kernel'])
  for step in range(5):
    state, _ = jax.jit(task.train_step)(state, data, KEY)
    rate = min(decay, (1 + step) / (10 + step))  # 0.1, 0.18, then 0.2
    average = rate * average + (1 - rate) * np.array(state.params['dense']['kernel'])
    np.testing.assert_allclose(state.ema['params']['dense']['kernel'], average, rtol=1e-5)
  assert np.abs(average - state.params['dense']['kernel']).max() > 1e-4
  assert evaluation_variables(state)['params'] is state.ema['params']
  outputs = predictor(Network(Linear()))(state, data)
  np.testing.assert_allclose(
    outputs, data['inputs'] @ average + np.array(state.ema['params']['dense']['bias']), rtol=1e-4, atol=1e-6
  )
  error = outputs[:, 0] - data['targets']
  np.testing.assert_allclose(task.eval_step(state, data, KEY)['loss'].total, (error**2).sum(), rtol=1e-4)


def test_without_an_average_the_parameters_are_evaluated():
  task = supervised(Linear(), mean_squared_error(), optax.sgd(RATE))
  state = task.init(KEY, batch())
  assert state.ema == {} and evaluation_variables(state)['params'] is state.params


def test_batch_statistics_move_in_training_alone():
  task = supervised(Normed(), mean_squared_error(), optax.sgd(RATE))
  data = batch()
  state = task.init(KEY, data)
  new, _ = task.train_step(state, data, KEY)
  statistics = new.mutable['batch_stats']['norm']
  np.testing.assert_allclose(statistics['mean'], 0.1 * data['inputs'].mean(0), rtol=1e-4)
  np.testing.assert_allclose(statistics['var'], 0.9 + 0.1 * data['inputs'].var(0), rtol=1e-4)
  one, all_ = (predictor(Network(Normed()))(new, {'inputs': data['inputs'][:n]}) for n in (1, 6))
  np.testing.assert_allclose(one, all_[:1], rtol=1e-5)


def test_collections_that_a_step_does_not_touch_stay():
  class WithTable(nn.Module):
    @nn.compact
    def __call__(self, inputs, train=False):
      table = self.variable('constants', 'table', lambda: jnp.arange(3.0))
      return nn.Dense(1)(inputs * table.value[None])

  task = supervised(WithTable(), mean_squared_error(), optax.sgd(RATE))
  state = task.init(KEY, batch())
  for _ in range(2):
    state, _ = task.train_step(state, batch(), KEY)
  np.testing.assert_array_equal(state.mutable['constants']['table'], np.arange(3.0))


def test_a_step_is_a_function_of_its_key():
  task = supervised(Normed(), mean_squared_error(), optax.sgd(RATE))
  state = task.init(KEY, batch())
  ends = [task.train_step(state, batch(), jax.random.key(seed))[0].params['Dense_0']['kernel'] for seed in (1, 1, 2)]
  np.testing.assert_array_equal(ends[0], ends[1])
  assert np.abs(np.array(ends[0] - ends[2])).max() > 1e-4


def test_raw_inputs_are_augmented_in_training_alone_and_preprocessed_always():
  seen = []

  def objective(model, variables, data, key, train):
    seen.append((train, np.array(data['inputs'])[0, 0]))
    outputs, mutable = apply(model, variables, data, key, train)
    return mean(outputs[:, 0]), Aux({}, mutable)

  def double(data):
    return {**data, 'inputs': 2.0 * data['inputs']}

  def increment(data, key):
    return {**data, 'inputs': data['inputs'] + 1}

  task = supervised(Linear(), objective, optax.sgd(RATE), double, increment)
  data = batch()
  state = task.init(KEY, data)
  task.eval_step(state, data, KEY)
  task.train_step(state, data, KEY)
  first = data['inputs'][0, 0]
  assert seen == [(False, 2 * first), (True, 2 * (first + 1))]
  np.testing.assert_allclose(
    predictor(Network(Linear(), double))(state, data), 2 * data['inputs'] @ state.params['dense']['kernel'], rtol=1e-5
  )


@pytest.mark.parametrize('options', [{'ema_decay': 1.0}, {'ema_decay': -0.1}])
def test_numbers_out_of_range_are_refused(options):
  ((name, value),) = options.items()
  with pytest.raises(ConfigError, match=f'{name}={value}'):
    supervised(Linear(), mean_squared_error(), optax.sgd(RATE), **options)


class Tuned(nn.Module):
  """A head on an encoder."""

  @nn.compact
  def __call__(self, inputs, train=False):
    return nn.Dense(1, name='head')(Normed(3, name='encoder')(inputs, train))


def test_what_is_frozen_stands_still_and_runs_as_in_evaluation():
  options, data = {'ema_decay': 0.9, 'frozen': ('encoder/*',)}, batch()
  task = supervised(Tuned(), mean_squared_error(), optax.adam(RATE), **options)
  state = task.init(KEY, data)
  assert set(state.params) == set(state.ema['params']) == set(state.opt_state[0].mu) == {'head'}
  assert set(state.frozen) == {'params', 'batch_stats'} and not state.mutable
  statistics = {'encoder': {'norm': {'mean': jnp.full(3, 0.5), 'var': jnp.full(3, 4.0)}}}
  state = state.replace(frozen={**state.frozen, 'batch_stats': statistics})
  new, metrics = jax.jit(task.train_step)(state, data, KEY)
  jax.tree.map(np.testing.assert_array_equal, new.frozen, state.frozen)
  assert all((old != now).any() for old, now in zip(*map(jax.tree.leaves, (state.params, new.params)), strict=True))
  outputs = Tuned().apply(evaluation_variables(state), data['inputs'])  # as the averages begin with the parameters
  np.testing.assert_allclose(metrics['loss'].total, ((outputs[:, 0] - data['targets']) ** 2).sum(), rtol=1e-5)


class Flat(nn.Module):
  """Batch norm as our models call it: with `train` as a field."""

  @nn.compact
  def __call__(self, inputs, train=False):
    return nn.Dense(1, name='head')(norm('batch', 3, train, name='norm')(inputs))


def test_a_frozen_norm_normalizes_with_its_own_statistics():
  task, data = supervised(Flat(), mean_squared_error(), optax.sgd(RATE), frozen=('norm/*',)), batch()
  state = task.init(KEY, data)
  _, metrics = task.train_step(state, data, KEY)
  np.testing.assert_allclose(metrics['loss'].total, task.eval_step(state, data, KEY)['loss'].total, rtol=1e-5)


def test_an_optimizer_that_keeps_parameters_is_restarted_with_those_of_the_state():
  task = supervised(Linear(), mean_squared_error(), optax.contrib.schedule_free_sgd(RATE))
  state = task.init(KEY, batch())
  state = task.restarted(state.replace(params=jax.tree.map(jnp.zeros_like, state.params)))
  jax.tree.map(np.testing.assert_array_equal, state.opt_state.z, state.params)


def test_single_parameters_can_be_frozen():
  task = supervised(Tuned(), mean_squared_error(), optax.sgd(RATE), frozen=('*/norm/*', 'head/bias'))
  state = task.init(KEY, batch())
  new, _ = task.train_step(state, batch(), KEY)
  jax.tree.map(np.testing.assert_array_equal, new.frozen, state.frozen)
  assert set(state.frozen['params']) == {'encoder', 'head'} and set(state.frozen['batch_stats']['encoder']) == {'norm'}


@pytest.mark.parametrize(
  ('patterns', 'line'),
  [(('encodr/*',), "'encodr/.' matches no parameter; nearest: encoder/"), (('*',), 'leaves no parameter to train')],
)
def test_patterns_that_freeze_nothing_or_all_are_refused(patterns, line):
  with pytest.raises(ConfigError, match=f'config.optimizer.freeze: .*{line}'):
    supervised(Tuned(), mean_squared_error(), optax.sgd(RATE), frozen=patterns).init(KEY, batch())


class Codes(nn.Module):
  """Noise of its own stream, and a counter for a codebook."""

  @nn.compact
  def __call__(self, inputs, train=False):
    used = self.variable('codebook', 'used', lambda: jnp.zeros(()))
    if train:
      used.value = used.value + 1
    noise = jax.random.normal(self.make_rng('noise'), inputs.shape) if train else 0
    return nn.Dense(1)(nn.Dropout(0.5)(inputs + noise, deterministic=not train))


def test_an_objective_names_its_random_streams_and_the_collections_that_move():
  def objective(model, variables, data, key, train):
    outputs, mutable = apply(model, variables, data, key, train, streams=('noise', 'dropout'), moving=('codebook',))
    return mean(outputs[:, 0]), Aux({}, mutable)

  task = supervised(Codes(), objective, optax.sgd(RATE))
  state = task.init(KEY, batch())
  totals = []
  for seed in (1, 1, 2):
    new, metrics = task.train_step(state, batch(), jax.random.key(seed))
    totals.append(metrics['loss'].total)
    assert new.mutable['codebook']['used'] == 1
  assert totals[0] == totals[1] != totals[2]


def test_any_transformation_of_optax_can_be_the_optimizer():
  plateau = optax.chain(optax.sgd(RATE), optax.contrib.reduce_on_plateau(patience=1, factor=0.5))

  class Regression(Config):
    def network(self, fitted):
      return Network(Linear())

  data, config = Dataset(*(Arrays(batch()) for _ in range(3))), Regression(batch_size=6)
  task = supervised_experiment(config, data, {}, mean_squared_error(), min, optimizer=plateau).task
  state, still = task.init(KEY, batch()), batch()
  still['targets'] = still['inputs'] @ np.asarray(state.params['dense']['kernel'])[:, 0]  # there is nothing to gain
  for _ in range(4):
    state, _ = task.train_step(state, still, KEY)
  assert state.opt_state[1].scale < 1
