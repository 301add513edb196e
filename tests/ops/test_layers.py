"""Our layers against Linen's own: the same parameters, outputs and gradients, in double precision."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from research.ops.layers import Conv, Conv1D, Dense

CONVOLUTIONS = [
  ((2, 8, 8, 3), (3, 3), (1, 1), 'SAME'),
  ((2, 8, 8, 1), (3, 3), (1, 1), 'SAME'),
  ((2, 9, 7, 1), (5, 4), (2, 1), 'VALID'),
  ((2, 9, 8, 1), (3, 3), (2, 2), 'SAME'),
  ((2, 8, 9, 1), (7, 7), (2, 2), ((3, 3), (3, 3))),
]


def shapes(tree):
  return jax.tree.map(jnp.shape, tree)


def value_and_gradients(layer, variables, x):
  def loss(variables, x):
    y = layer.apply(variables, x)
    return jnp.sum(jnp.sin(y)), y

  return jax.jit(jax.value_and_grad(loss, (0, 1), has_aux=True))(variables, x)


def assert_alike(ours, plain, x):
  variables = plain.init(jax.random.key(0), x)
  assert shapes(ours.init(jax.random.key(0), x)) == shapes(variables)
  variables = jax.tree.map(lambda p: jax.random.normal(jax.random.key(1), p.shape, x.dtype), variables)
  compare = partial(np.testing.assert_allclose, rtol=1e-9, atol=1e-9)
  jax.tree.map(compare, value_and_gradients(ours, variables, x), value_and_gradients(plain, variables, x))


@pytest.mark.parametrize(('shape', 'window', 'strides', 'padding'), CONVOLUTIONS)
@pytest.mark.parametrize('use_bias', [True, False])
def test_convolution(x64, shape, window, strides, padding, use_bias):
  x = jnp.asarray(np.random.default_rng(0).standard_normal(shape))
  assert_alike(Conv(4, window, strides, padding, use_bias), nn.Conv(4, window, strides, padding, use_bias=use_bias), x)


@pytest.mark.parametrize('shape', [(4, 3), (2, 5, 3)])
@pytest.mark.parametrize('use_bias', [True, False])
def test_dense(x64, shape, use_bias):
  x = jnp.asarray(np.random.default_rng(0).standard_normal(shape))
  assert_alike(Dense(6, use_bias), nn.Dense(6, use_bias), x)


@pytest.mark.parametrize('use_bias', [True, False])
@pytest.mark.parametrize(
  ('ours', 'plain'),
  [
    ({}, {'padding': 'SAME'}),
    ({'dilation': 3}, {'padding': 'SAME', 'kernel_dilation': 3}),
    ({'dilation': 2, 'causal': True}, {'padding': 'CAUSAL', 'kernel_dilation': 2}),
    ({'stride': 2}, {'padding': [(1, 2)], 'strides': 2}),
  ],
)
def test_convolution_of_series(x64, ours, plain, use_bias):
  x = jnp.asarray(np.random.default_rng(0).standard_normal((2, 11, 3)))
  assert_alike(Conv1D(5, 4, use_bias=use_bias, **ours), nn.Conv(5, (4,), use_bias=use_bias, **plain), x)
