"""Our layers against Linen's own: the same parameters, outputs and gradients, in double precision."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from research.errors import ConfigError
from research.ops.layers import Conv, Conv1D, ConvTranspose, Dense, Embed

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


@pytest.mark.parametrize(
  ('window', 'strides', 'padding', 'use_bias'),
  [
    ((4, 4), (2, 2), 'SAME', True),
    ((3, 2), (1, 1), 'SAME', False),
    ((3, 5), (2, 3), 'VALID', False),
    ((2, 1), (3, 2), 'SAME', True),
    ((2, 3), (3, 1), 'VALID', True),
    ((3, 2), (2, 2), ((1, 2), (3, 0)), False),
  ],
)
def test_transposed_convolution(x64, window, strides, padding, use_bias):
  x = jnp.asarray(np.random.default_rng(0).standard_normal((2, 3, 4, 3)))
  plain = nn.ConvTranspose(2, window, strides, padding, use_bias=use_bias)
  assert_alike(ConvTranspose(2, window, strides, padding, use_bias), plain, x)


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


@pytest.mark.parametrize(
  'make, shape, message',
  [
    (lambda: Dense(0), (2, 3), 'features=0: must be a whole number of at least 1'),
    (lambda: Dense(4), (2, 3, 0), r'a dense layer of inputs \(2, 3, 0\): they are empty'),
    (lambda: Embed(0, 4), (2,), 'num_embeddings=0'),
    (lambda: Embed(4, -1), (2,), 'features=-1'),
    (lambda: Conv(4, (3, 0)), (2, 8, 8, 1), r'kernel_size=\(3, 0\)'),
    (lambda: Conv(4, (3, 3), (0, 1)), (2, 8, 8, 3), r'strides=\(0, 1\)'),
    (lambda: Conv(4, (5, 5), padding='VALID'), (2, 8, 4, 1), 'a window of 5x5 on feature maps of 8x4'),
    (lambda: Conv(4, (5, 5), padding='VALID'), (2, 4, 8, 3), 'a window of 5x5 on feature maps of 4x8'),
    (lambda: Conv(4, (7, 7), padding=((2, 2), (3, 3))), (2, 2, 2, 3), 'a window of 7x7 on feature maps of 2x2'),
    (lambda: ConvTranspose(4, (3, 3), (2, 0)), (2, 8, 8, 3), r'strides=\(2, 0\)'),
    (
      lambda: ConvTranspose(4, (5, 5), (2, 2), ((0, 0), (0, 0))),
      (2, 2, 2, 3),
      'a window of 5x5 on feature maps of 3x3',
    ),
    (lambda: Conv1D(4, 0), (2, 8, 3), 'kernel_size=0'),
    (lambda: Conv1D(4, 3, stride=0), (2, 8, 3), 'stride=0'),
    (lambda: Conv1D(4, 3, dilation=-1), (2, 8, 3), 'dilation=-1'),
  ],
)
def test_sizes_that_cannot_be_are_refused(make, shape, message):
  with pytest.raises(ConfigError, match=message):
    jax.eval_shape(make().init, jax.random.key(0), jnp.zeros(shape))


@pytest.mark.parametrize('channels', [1, 3])
def test_a_filter_may_be_as_large_as_the_padded_image(channels):
  for layer, side in ((Conv(4, (5, 5), padding='VALID'), 5), (Conv(4, (7, 7), padding=((2, 3), (3, 2))), 2)):
    images = jnp.zeros((2, side, side, channels))
    outputs, _ = jax.eval_shape(layer.init_with_output, jax.random.key(0), images)
    assert outputs.shape == (2, 1, 1, 4)
