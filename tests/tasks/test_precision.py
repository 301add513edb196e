"""Fewer bits in the computation alone: what runs in them, what stays float32, and how float16's loss scale moves."""

import dataclasses
import math
from collections.abc import Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn
from jax.extend import core

from launch.flags import load_config
from research.data.examples import Arrays
from research.errors import NotFiniteError
from research.metrics import mean
from research.models.cnn import ConvNet
from research.models.mlp import MLP
from research.models.norms import norm
from research.models.resnet import ResNet
from research.objectives.base import apply
from research.objectives.classification import softmax_cross_entropy
from research.objectives.regression import mean_squared_error
from research.tasks import precision
from research.tasks.adversarial import adversarial
from research.tasks.base import LOSS_SCALE, State, evaluation_variables
from research.tasks.descend import Compute
from research.tasks.network import Network, predictor
from research.tasks.supervised import supervised
from research.train.loop import train
from research.types import Aux

KEY = jax.random.key(0)
HALF = ('bfloat16', 'float16')
CLASSIFIER = Path(__file__).parents[1] / 'configs' / 'classifier.py'
MODELS = {
  'mlp': MLP((8, 8), 3, 'gelu', dropout_rate=0.1, norm='layer'),
  'cnn': ConvNet((4, 4), 3, (8,), norm='batch', channel_dropout_rate=0.1),
  'resnet': ResNet((1, 1), 3, width=4, norm='group', stem='pooled'),
  'resnet_v2': ResNet((1, 1), 3, width=4, preactivation=True),
}


class Linear(nn.Module):
  @nn.compact
  def __call__(self, inputs, train=False):
    return nn.Dense(1, use_bias=False, name='dense')(inputs)


class Normed(nn.Module):
  @nn.compact
  def __call__(self, inputs, train=False):
    return Linear()(norm('batch', inputs.shape[-1], train, 'norm')(inputs))


def images(count: int = 4) -> dict:
  numbers = np.random.default_rng(0)
  inputs = jnp.asarray(numbers.normal(size=(count, 8, 8, 1)), jnp.float32)
  return {'inputs': inputs, 'targets': np.arange(count) % 3, 'index': np.arange(count)}


def rows(count: int = 6, scale: float = 1.0) -> dict:
  numbers = np.random.default_rng(0)
  inputs, targets = numbers.normal(size=(count, 3)), scale * (2 + numbers.normal(size=count))
  return {'inputs': inputs.astype(np.float32), 'targets': targets.astype(np.float32), 'index': np.arange(count)}


def products(jaxpr: core.Jaxpr) -> Iterator[core.JaxprEqn]:
  """Matrix products and convolutions of a jaxpr and of all that it calls."""
  for equation in jaxpr.eqns:
    if equation.primitive.name in ('dot_general', 'conv_general_dilated'):
      yield equation
    for value in equation.params.values():
      called = getattr(value, 'jaxpr', value)
      if isinstance(called, core.Jaxpr):
        yield from products(called)


def operands(function, *arguments) -> set[str]:
  equations = products(jax.make_jaxpr(function)(*arguments).jaxpr)
  return {str(variable.aval.dtype) for equation in equations for variable in (*equation.invars, *equation.outvars)}


def dtypes(tree) -> set[str]:
  return {str(leaf.dtype) for leaf in jax.tree.leaves(tree) if jnp.issubdtype(leaf.dtype, jnp.floating)}


def same(left, right) -> None:
  jax.tree.map(np.testing.assert_array_equal, left, right)


@pytest.mark.parametrize('bits', ['float32', *HALF])
@pytest.mark.parametrize('name', MODELS)
def test_products_run_in_the_precision_and_the_state_stays_float32(name, bits):
  task = supervised(MODELS[name], softmax_cross_entropy(), optax.adam(0.1), ema_decay=0.9, compute=Compute(bits))
  state = task.init(KEY, images())
  assert operands(task.train_step, state, images(), KEY) == {bits}
  assert operands(task.eval_step, state, images(), KEY) == {bits}
  new, metrics = jax.eval_shape(task.train_step, state, images(), KEY)
  assert dtypes((state, new, metrics)) == {'float32'}
  assert jax.tree.map(jnp.shape, new) == jax.tree.map(jnp.shape, state)
  outputs = jax.eval_shape(predictor(Network(MODELS[name]).computing_in(bits)), state, images())
  assert outputs.dtype == jnp.float32


@pytest.mark.parametrize('bits', HALF)
def test_a_model_sees_rounded_parameters_and_inputs(bits):
  data = rows()
  state = supervised(Linear(), mean_squared_error(), optax.sgd(0.1)).init(KEY, data)
  inputs, kernel = (np.array(jnp.asarray(x, bits), np.float64) for x in (data['inputs'], kernel_of(state)))
  outputs = predictor(Network(Linear()).computing_in(bits))(state, data)
  np.testing.assert_array_equal(outputs, jnp.asarray(inputs @ kernel, bits).astype(np.float32))
  assert np.abs(outputs - data['inputs'] @ kernel_of(state)).max() > 1e-4


@pytest.mark.parametrize('bits', HALF)
def test_the_loss_sees_targets_mask_and_inputs_as_they_are(bits):
  seen = {}

  def objective(model, variables, batch, key, train):
    outputs, mutable = apply(model, variables, batch, key, train)
    seen.update(batch, outputs=outputs)
    return mean(outputs[:, 0] * batch['targets'], batch['mask']), Aux({}, mutable)

  data = {**rows(), 'targets': np.full(6, 1 + 2**-20, np.float32), 'mask': np.ones(6, np.float32)}
  task = supervised(Linear(), objective, optax.sgd(0.1), compute=Compute(bits))
  task.eval_step(task.init(KEY, data), data, KEY)
  same({name: seen[name] for name in data}, data)
  assert dtypes(seen) == {'float32'}


@pytest.mark.parametrize('kind', ['batch', 'layer', 'group'])
@pytest.mark.parametrize('bits', HALF)
def test_norms_take_their_statistics_in_float32(kind, bits):
  x = jnp.asarray(np.random.default_rng(0).normal(100, 1, (512, 16)), bits)
  layer = norm(kind, 16, train=True, name='norm')
  variables = layer.init(KEY, x)
  params = jax.tree.map(lambda leaf: leaf.astype(bits), variables['params'])
  y, changed = layer.apply({**variables, 'params': params}, x, mutable=['batch_stats'])
  assert y.dtype == bits
  wide, axis = np.array(x, np.float64), 0 if kind == 'batch' else 1
  expected = (wide - wide.mean(axis, keepdims=True)) / np.sqrt(wide.var(axis, keepdims=True) + 1e-5)
  np.testing.assert_allclose(np.array(y, np.float64), expected, rtol=1e-2, atol=1e-2)
  if kind == 'batch':
    assert dtypes(changed) == {'float32'}
    np.testing.assert_allclose(changed['batch_stats']['mean'], 0.1 * wide.mean(0), rtol=1e-6)


@pytest.mark.parametrize('bits', HALF)
@pytest.mark.parametrize('name', ['cnn', 'resnet_v2'])
def test_a_step_is_near_that_of_float32(name, bits, monkeypatch):
  monkeypatch.setattr(precision, 'FIRST_SCALE', 2.0**8)  # so that the first step does not overflow
  ends = []
  for kind in ('float32', bits):
    task = supervised(MODELS[name], softmax_cross_entropy(), optax.sgd(0.1), compute=Compute(kind))
    state = task.init(KEY, images(16))
    new, metrics = jax.jit(task.train_step)(state, images(16), KEY)
    moved = jax.tree.map(lambda a, b: np.array(a - b), new.params, state.params)
    ends.append((np.concatenate([leaf.ravel() for leaf in jax.tree.leaves(moved)]), metrics['loss'].total))
  (wide, loss), (narrow, other) = ends
  np.testing.assert_allclose(other, loss, rtol=2e-2)
  assert np.linalg.norm(narrow - wide) < 0.1 * np.linalg.norm(wide) and np.abs(narrow - wide).max() > 0


def kernel_of(state: State) -> np.ndarray:
  return np.array(state.params['dense']['kernel'])


def with_scale(state: State, scale: float, counter: int = 0) -> State:
  entry = {'loss_scale': jnp.float32(scale), 'counter': jnp.int32(counter)}
  return state.replace(mutable={**state.mutable, LOSS_SCALE: entry})


def scale_of(state: State) -> tuple[float, int]:
  return float(state.mutable[LOSS_SCALE]['loss_scale']), int(state.mutable[LOSS_SCALE]['counter'])


def test_a_step_that_overflows_changes_nothing_but_the_scale():
  """An error of 2 times 2 times the scale of 32,768 is more than float16 holds."""
  task = supervised(Normed(), mean_squared_error(), optax.adam(0.1), ema_decay=0.5, compute=Compute('float16'))
  state = task.init(KEY, rows())
  new, metrics = jax.jit(task.train_step)(state, rows(), KEY)
  assert scale_of(state) == (2**15, 0) and scale_of(new) == (2**14, 0) and new.step == 1
  same(new.replace(step=state.step, mutable={**new.mutable, LOSS_SCALE: state.mutable[LOSS_SCALE]}), state)
  assert np.isfinite(metrics['loss'].total)

  moved, metrics = jax.jit(task.train_step)(with_scale(state, 2**8), rows(), KEY)
  assert scale_of(moved) == (2**8, 1)
  for old, leaf in zip(jax.tree.leaves(state), jax.tree.leaves(moved), strict=True):
    assert (np.array(old) != np.array(leaf)).any()
  assert metrics['loss'].total == jax.jit(task.train_step)(state, rows(), KEY)[1]['loss'].total


def test_the_scale_cancels_and_saves_gradients_that_float16_has_no_bits_for():
  data, task = rows(scale=1e-8), supervised(Linear(), mean_squared_error(), optax.sgd(0.1), compute=Compute('float16'))
  state = task.init(KEY, data)
  state = state.replace(params=jax.tree.map(jnp.zeros_like, state.params))
  expected = 0.1 * 2 * (data['inputs'].T @ data['targets'])[:, None] / 6
  new = task.train_step(state, data, KEY)[0]
  np.testing.assert_allclose(kernel_of(new), expected, rtol=1e-2, atol=2e-11)
  lost = kernel_of(task.train_step(with_scale(state, 1), data, KEY)[0])
  assert np.abs(lost / expected - 1).max() > 0.1


def test_the_scale_doubles_after_two_thousand_steps_without_overflow():
  task = supervised(Linear(), mean_squared_error(), optax.sgd(0.1), compute=Compute('float16'))
  state = task.init(KEY, rows())
  assert scale_of(task.train_step(with_scale(state, 4, 1998), rows(), KEY)[0]) == (4, 1999)
  assert scale_of(task.train_step(with_scale(state, 4, 1999), rows(), KEY)[0]) == (8, 0)


def test_a_gradient_that_no_scale_makes_finite_reaches_the_parameters():
  data = rows()
  data['targets'][0] = np.nan
  task = supervised(Linear(), mean_squared_error(), optax.sgd(0.1), compute=Compute('float16'))
  state = task.init(KEY, data)
  once, metrics = task.train_step(with_scale(state, 2), data, KEY)
  assert scale_of(once) == (1, 0) and np.isfinite(kernel_of(once)).all() and np.isnan(metrics['loss'].total)
  assert np.isnan(kernel_of(task.train_step(once, data, KEY)[0])).all()


def test_the_scale_is_no_collection_of_the_model():
  seen = set()

  def objective(model, variables, batch, key, train):
    seen.add(frozenset(variables))
    return mean_squared_error()(model, variables, batch, key, train)

  task = supervised(Normed(), objective, optax.sgd(0.1), compute=Compute('float16'))
  state = task.init(KEY, rows())
  task.eval_step(task.train_step(state, rows(), KEY)[0], rows(), KEY)
  assert seen == {frozenset({'params', 'batch_stats'})} == {frozenset(evaluation_variables(state))}
  assert set(state.mutable) == {'batch_stats', LOSS_SCALE}


@pytest.mark.parametrize('bits', HALF)
def test_two_players_step_as_in_float32_but_for_rounding(bits, monkeypatch):
  monkeypatch.setattr(precision, 'FIRST_SCALE', 2.0**8)
  ends = []
  for kind in ('float32', bits):
    rates = (optax.sgd(0.1), optax.sgd(0.1))
    task = adversarial(MLP((8,), 3), MLP((8,), 1), 2, *rates, critic_steps=2, compute=Compute(kind))
    state = task.init(KEY, rows())
    assert operands(task.train_step, state, rows(), KEY) == {kind}
    ends.append(jax.jit(task.train_step)(state, rows(), KEY)[0])
    assert dtypes(ends[-1]) == {'float32'} and ends[-1].step == 1
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=5e-3), *(end.params for end in ends))
  if bits == 'float16':
    assert scale_of(ends[1]) == (2**8, 3)


def test_an_overflow_of_one_player_leaves_both_as_they_were(monkeypatch):
  monkeypatch.setattr(precision, 'FIRST_SCALE', 2.0**40)
  rates = (optax.adam(0.1), optax.adam(0.1))
  task = adversarial(MLP((8,), 3), MLP((8,), 1), 2, *rates, critic_steps=2, compute=Compute('float16'))
  state = task.init(KEY, rows())
  new, _ = jax.jit(task.train_step)(state, rows(), KEY)
  assert scale_of(new) == (2**37, 0) and new.step == 1
  same((new.params, new.opt_state), (state.params, state.opt_state))


def float16_config():
  config = load_config(str(CLASSIFIER))
  return dataclasses.replace(config, precision='float16')


def test_a_run_goes_on_over_overflows_and_resumes_to_the_bit(tmp_path, monkeypatch):
  monkeypatch.setattr(precision, 'FIRST_SCALE', 2.0**20)
  config = float16_config()
  *_, alone = train(config)
  scale, counter = scale_of(alone.state)
  overflows = math.log2(2**20 / scale)
  assert 5 < overflows <= 40 - counter and counter > 0 and alone.metrics['validation/accuracy'] > 0.3
  short = dataclasses.replace(config, steps=5)
  *_, early = train(short, tmp_path)
  assert scale_of(early.state) == (2**15, 0)  # nothing but overflows so far
  *_, resumed = train(config, tmp_path)
  same(resumed.state, alone.state)


def test_a_loss_that_is_nan_stops_a_run_in_float16():
  config = float16_config()
  experiment = config.build()
  arrays = experiment.train.examples.arrays
  inputs = arrays['inputs'].astype(np.float32)
  inputs[experiment.train.indices(11)[0]] = np.nan
  broken = dataclasses.replace(experiment.train, examples=Arrays({**arrays, 'inputs': inputs}))
  with pytest.raises(NotFiniteError, match='loss of step 12 '):
    list(train(config, experiment=dataclasses.replace(experiment, train=broken)))
