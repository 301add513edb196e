"""Behavior of the multi-layer perceptron."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research.errors import ConfigError
from research.models.mlp import MLP

KEY = jax.random.key(0)
INPUTS = jax.random.normal(jax.random.key(1), (16, 4, 2))


def leaves(variables):
  return {jax.tree_util.keystr(path, simple=True, separator='/') for path, _ in jax.tree.leaves_with_path(variables)}


@pytest.mark.parametrize('residual', [False, True])
def test_is_the_formula(residual):
  model = MLP((8, 5, 5), 2, activation='tanh', residual=residual)
  variables = model.init(KEY, INPUTS)
  x = np.asarray(INPUTS, np.float64).reshape(16, 8)
  for number in range(4):
    layer = variables['params'][f'dense_{number}' if number < 3 else 'head']
    y = x @ np.asarray(layer['kernel'], np.float64) + np.asarray(layer['bias'], np.float64)
    y = np.tanh(y) if number < 3 else y
    x = x + y if residual and number in (0, 2) else y  # where widths are equal
  np.testing.assert_allclose(model.apply(variables, INPUTS), x, atol=1e-5)


def test_softmax_at_the_head_gives_probabilities():
  outputs = MLP((5,), 3, output_activation='softmax').init_with_output(KEY, INPUTS)[0]
  np.testing.assert_allclose(outputs.sum(-1), 1, rtol=1e-5)
  assert (outputs > 0).all()


def test_dropout_acts_in_training_alone():
  model = MLP((64,), 2, dropout_rate=0.5)
  variables = model.init(KEY, INPUTS)
  first, second = (
    model.apply(variables, INPUTS, train=True, rngs={'dropout': jax.random.key(seed)}) for seed in range(2)
  )
  plain = MLP((64,), 2).apply(variables, INPUTS)
  assert not np.allclose(first, second)
  np.testing.assert_array_equal(model.apply(variables, INPUTS), plain)


@pytest.mark.parametrize('norm', ['batch', 'layer'])
def test_no_bias_where_a_norm_follows(norm):
  names = leaves(MLP((5,), 2, norm=norm).init(KEY, INPUTS)['params'])
  expected = {'dense_0/kernel', 'norm_0/scale', 'norm_0/bias', 'head/kernel', 'head/bias'}
  assert names == expected


def test_batch_statistics_move_in_training_alone():
  model = MLP((5,), 2, norm='batch')
  variables = model.init(KEY, INPUTS)
  _, changed = model.apply(variables, INPUTS, train=True, mutable=['batch_stats'])
  hidden = np.asarray(INPUTS).reshape(16, 8) @ np.asarray(variables['params']['dense_0']['kernel'])
  statistics = changed['batch_stats']['norm_0']
  np.testing.assert_allclose(statistics['mean'], 0.1 * hidden.mean(0), atol=1e-5)
  np.testing.assert_allclose(statistics['var'], 0.9 + 0.1 * hidden.var(0), atol=1e-5)
  one, many = model.apply(variables, INPUTS[:1]), model.apply(variables, INPUTS)[:1]
  np.testing.assert_allclose(one, many, atol=1e-6)  # in evaluation no example depends on the others


def test_residual_passes_the_gradient_through_dead_layers():
  model = MLP((8, 8), 1, residual=True)
  variables = model.init(KEY, INPUTS)
  dead = jax.tree.map(jnp.zeros_like, variables['params'])
  params = {**dead, 'head': variables['params']['head']}
  gradient = jax.grad(lambda x: model.apply({'params': params}, x).sum())(INPUTS)
  expected = np.broadcast_to(np.asarray(params['head']['kernel']).reshape(4, 2), INPUTS.shape)
  np.testing.assert_allclose(gradient, expected, atol=1e-6)


def test_unknown_norm_is_refused():
  with pytest.raises(ConfigError, match="'bach'"):
    MLP((5,), 2, norm='bach').init(KEY, INPUTS)


@pytest.mark.parametrize(
  ('fields', 'message'),
  [
    ({'dropout_rate': 1.0}, 'dropout_rate=1.0'),
    ({'num_outputs': 0}, 'num_outputs=0'),
    ({'hidden_sizes': (5, 0)}, r'hidden_sizes=\(5, 0\): each must be a whole number of at least 1'),
    ({'output_activation': 'sofmax'}, "output_activation='sofmax': is unknown; nearest: softmax"),
  ],
)
def test_fields_out_of_range_are_refused(fields, message):
  with pytest.raises(ConfigError, match=message):
    MLP(**{'hidden_sizes': (5,), 'num_outputs': 2, **fields})
