"""Forecasters: against formulas in numpy, and what must not depend on what."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research.errors import ConfigError
from research.models.forecasting import DLinear, LogVariance, PatchRNN, level_of, moving_average
from research.models.rnn import RNN

KEY = jax.random.key(0)
INPUTS = np.random.default_rng(0).normal(2, 3, (4, 48, 3)).astype(np.float32)


def patched(**options):
  model = PatchRNN(RNN(8), horizon=6, num_outputs=2, **{'patch_size': 12, **options})
  variables = model.init(KEY, INPUTS)
  moved = jax.tree.map(lambda leaf: leaf + 0.1 * jax.random.normal(KEY, leaf.shape), variables)  # no zeros are left
  return model, moved


def test_moving_average_is_numpys_on_the_padded_series():
  past = INPUTS.swapaxes(1, 2)
  padded = np.pad(past, ((0, 0), (0, 0), (2, 2)), mode='edge')
  expected = [[np.convolve(series, np.full(5, 0.2), 'valid') for series in example] for example in padded]
  np.testing.assert_allclose(moving_average(jnp.asarray(past), 5), expected, atol=1e-5)
  np.testing.assert_array_equal(moving_average(jnp.asarray(past), 1), past)
  for steps in (4, 0, -1):
    with pytest.raises(ConfigError, match=f'window={steps}'):
      moving_average(jnp.asarray(past), steps)


def test_dlinear_is_two_products():
  model = DLinear(6, num_outputs=2, window=5)
  outputs, variables = model.init_with_output(KEY, INPUTS)
  past = INPUTS.swapaxes(1, 2).astype(np.float64)
  trend = np.asarray(moving_average(jnp.asarray(INPUTS.swapaxes(1, 2)), 5), np.float64)
  first, second = (jax.tree.map(np.asarray, variables['params'][name]) for name in ('trend', 'seasonal'))
  values = trend @ first['kernel'] + first['bias'] + (past - trend) @ second['kernel'] + second['bias']
  np.testing.assert_allclose(outputs, values.reshape(4, 3, 6, 2).transpose(0, 2, 1, 3), rtol=1e-4, atol=1e-4)


def test_patches_are_read_in_turn_and_the_forecast_is_read_from_the_last_beside_a_linear_one():
  model, variables = patched()
  params = jax.tree.map(np.asarray, variables['params'])
  level, spread = INPUTS[:, -1], np.sqrt(INPUTS.var(1) + 1e-5)
  past = ((INPUTS - level[:, None]) / spread[:, None]).swapaxes(1, 2)
  embedded = past.reshape(12, 4, 12) @ params['embed']['kernel'] + params['embed']['bias']
  states, _ = RNN(8).apply({'params': variables['params']['rnn']}, jnp.asarray(embedded))
  last = np.asarray(states)[:, -1].reshape(4, 3, 8)
  values = last @ params['head']['kernel'] + params['head']['bias'] + past @ params['linear']['kernel']
  expected = (values * spread[..., None] + level[..., None]).reshape(4, 3, 6, 2).swapaxes(1, 2)
  np.testing.assert_allclose(model.apply(variables, INPUTS), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize('model', [patched()[0], DLinear(6, 2)])
def test_outputs_are_numbers_for_each_step_and_variable(model):
  assert model.init_with_output(KEY, INPUTS)[0].shape == (4, 6, 3, 2)


def test_a_variable_that_moves_to_another_level_and_unit_takes_its_forecast_along():
  model, variables = patched()
  unit, level = np.array([2.0, 0.5, 10.0], np.float32), np.array([-7.0, 0.0, 40.0], np.float32)
  outputs = np.asarray(model.apply(variables, INPUTS))
  expected = outputs * unit[:, None] + level[:, None]
  np.testing.assert_allclose(model.apply(variables, INPUTS * unit + level), expected, rtol=2e-3, atol=2e-3)


def test_every_variable_is_forecast_by_the_same_network_from_itself_alone():
  model, variables = patched()
  outputs = np.asarray(model.apply(variables, INPUTS))
  np.testing.assert_allclose(model.apply(variables, INPUTS[..., ::-1])[:, :, ::-1], outputs, atol=1e-5)
  changed = INPUTS.copy()
  changed[..., 1] += np.random.default_rng(1).normal(size=(4, 48))
  other = np.asarray(model.apply(variables, changed))
  np.testing.assert_allclose(other[:, :, [0, 2]], outputs[:, :, [0, 2]], atol=1e-5)
  assert np.abs(other[:, :, 1] - outputs[:, :, 1]).min() > 1e-4


def test_every_step_of_the_past_is_seen():
  model, variables = patched()
  slope = jax.grad(lambda inputs: model.apply(variables, inputs)[0, 0, 0, 0])(jnp.asarray(INPUTS))
  assert (slope[0, :, 0] != 0).all() and (slope[0, :, 1:] == 0).all() and (slope[1:] == 0).all()


def test_dropout_acts_in_training_alone():
  model, variables = patched(dropout_rate=0.5)
  first, second = (model.apply(variables, INPUTS, train=True, rngs={'dropout': jax.random.key(n)}) for n in range(2))
  assert not np.allclose(first, second)
  np.testing.assert_array_equal(model.apply(variables, INPUTS), patched()[0].apply(variables, INPUTS))


def test_patches_that_do_not_fit_and_a_dropout_of_all_are_refused():
  with pytest.raises(ConfigError, match='patch_size=10: must divide the context of 48 steps'):
    patched(patch_size=10)
  with pytest.raises(ConfigError, match='dropout_rate=1'):
    patched(dropout_rate=1.0)
  with pytest.raises(ConfigError, match='horizon=-3'):  # times minus one output there are three numbers
    DLinear(horizon=-3, num_outputs=-1).init(KEY, INPUTS)
  with pytest.raises(ConfigError, match='mean=nan'):
    LogVariance(RNN(5), mean=np.nan).init(KEY, INPUTS)
  with pytest.raises(ConfigError, match='dropout_rate=1.0'):
    LogVariance(RNN(5), mean=0.0, dropout_rate=1.0).init(KEY, INPUTS)


def test_log_variance_begins_at_its_mean_and_is_linear_in_the_last_step_but_for_the_network():
  model = LogVariance(RNN(5, cell='gru'), mean=0.7)
  outputs, variables = model.init_with_output(KEY, INPUTS)
  np.testing.assert_array_equal(outputs, np.full(4, 0.7, np.float32))
  kernel, bias = jnp.array([[1.0], [-2.0], [0.5]]), jnp.array([0.25])
  params = {**variables['params'], 'linear': {'kernel': kernel, 'bias': bias}}
  np.testing.assert_allclose(
    model.apply({'params': params}, INPUTS), 0.95 + INPUTS[:, -1] @ np.asarray(kernel)[:, 0], rtol=1e-5
  )
  params['correction'] = {'kernel': jnp.ones((5, 1))}
  states, _ = RNN(5, cell='gru').apply({'params': params['rnn']}, jnp.asarray(INPUTS))  # an earlier step reaches these
  corrected = 0.95 + INPUTS[:, -1] @ np.asarray(kernel)[:, 0] + states[:, -1].sum(-1)
  np.testing.assert_allclose(model.apply({'params': params}, INPUTS), corrected, rtol=1e-5)


def test_a_window_without_variance_has_a_spread():
  level = level_of(np.full((1, 4, 2), 3.0, np.float32))
  np.testing.assert_allclose(level.middle, 3)
  np.testing.assert_allclose(level.spread, np.sqrt(1e-5), rtol=1e-5)
