"""The fast max-pooling against Linen's plain one, in double precision."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from research.errors import ConfigError
from research.ops.pooling import max_pool

TOLERANCE = 1e-9


def plain_pool(x, window):
  return nn.max_pool(x, window, window)


def gradient(pool, x, weights):
  return jax.jit(jax.grad(lambda x: jnp.sum(pool(x) * weights)))(x)


@pytest.mark.parametrize(
  ('shape', 'window'),
  [
    ((2, 8, 8, 3), (2, 2)),
    ((3, 6, 9, 1), (2, 3)),
    ((2, 7, 7, 2), (2, 2)),
    ((1, 5, 9, 4), (3, 4)),
    ((2, 4, 4, 1), (1, 2)),
  ],
)
@pytest.mark.parametrize('ties', [False, True])
def test_value_and_gradient_are_those_of_the_plain_form(x64, shape, window, ties):
  rng = np.random.default_rng(0)
  x = jnp.asarray(rng.integers(0, 3, shape).astype(float) if ties else rng.standard_normal(shape))
  np.testing.assert_array_equal(max_pool(x, window), plain_pool(x, window))
  weights = rng.standard_normal(max_pool(x, window).shape)
  expected = gradient(lambda x: plain_pool(x, window), x, weights)
  np.testing.assert_allclose(gradient(lambda x: max_pool(x, window), x, weights), expected, atol=TOLERANCE)


def test_gradient_goes_to_the_first_maximum():
  x = jnp.ones((1, 4, 4, 1)).at[0, 0, 0, 0].set(0)
  expected = np.zeros((4, 4))
  expected[0, 1] = expected[0, 2] = expected[2, 0] = expected[2, 2] = 1
  np.testing.assert_array_equal(gradient(lambda x: max_pool(x, (2, 2)), x, 1.0)[0, :, :, 0], expected)


@pytest.mark.parametrize(
  ('strides', 'padding'), [((1, 1), 'VALID'), ((3, 3), 'SAME'), ((2, 2), 'SAME'), ((2, 2), ((1, 1), (1, 1)))]
)
def test_overlapping_and_padded_windows_are_the_plain_form(strides, padding):
  x = jnp.asarray(np.random.default_rng(0).standard_normal((2, 7, 7, 2)))
  expected = nn.max_pool(x, (3, 3), strides, padding)
  np.testing.assert_array_equal(max_pool(x, (3, 3), strides, padding), expected)


def test_no_scatter_is_left_in_the_gradient_of_tiles():
  x = jnp.zeros((2, 6, 6, 2))
  text = jax.jit(jax.grad(lambda x: jnp.sum(max_pool(x, (2, 2))))).lower(x).as_text()
  assert 'select_and_scatter' not in text


def test_second_and_forward_derivatives(x64):
  x = jnp.asarray(np.random.default_rng(0).standard_normal((1, 4, 4, 1)))

  def function(x):
    return jnp.sum(max_pool(x, (2, 2)) ** 3)

  def plain(x):
    return jnp.sum(plain_pool(x, (2, 2)) ** 3)

  hessian = jax.hessian(function)(x).reshape(16, 16)
  np.testing.assert_allclose(hessian, jax.jacrev(jax.grad(plain))(x).reshape(16, 16), atol=TOLERANCE)
  tangent = jnp.ones_like(x)
  directional = jax.jvp(function, (x,), (tangent,))[1]
  np.testing.assert_allclose(directional, jnp.sum(jax.grad(plain)(x) * tangent), atol=TOLERANCE)


@pytest.mark.parametrize(
  'arguments, message',
  [
    (((0, 2),), r'window=\(0, 2\)'),
    (((2, 2), (2, 0)), r'strides=\(2, 0\)'),
    (((2, 5),), 'a window of 2x5 on feature maps of 4x4'),
    (((5, 2), (1, 1)), 'a window of 5x2 on feature maps of 4x4'),
  ],
)
def test_windows_that_cannot_be_are_refused(arguments, message):
  with pytest.raises(ConfigError, match=message):
    max_pool(jnp.zeros((1, 4, 4, 1)), *arguments)
