"""The fast bias against plain addition, in double precision."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research.ops.bias import bias_add


def plain(x, bias):
  return x + jnp.broadcast_to(bias, x.shape)


@pytest.mark.parametrize('shape', [(5,), (4, 3), (2, 7, 5), (3, 4, 5, 2), (2, 1, 3, 2, 4)])
def test_value_and_gradient_are_those_of_the_plain_form(x64, shape):
  rng = np.random.default_rng(0)
  x, bias, weights = (jnp.asarray(rng.standard_normal(s)) for s in (shape, shape[-1:], shape))
  np.testing.assert_array_equal(bias_add(x, bias), plain(x, bias))

  def gradients(add):
    return jax.jit(jax.grad(lambda x, b: jnp.sum(weights * add(x, b) ** 2), (0, 1)))(x, bias)

  for ours, expected in zip(gradients(bias_add), gradients(plain), strict=True):
    assert ours.shape == expected.shape
    np.testing.assert_allclose(ours, expected, rtol=1e-9, atol=1e-9)


def test_second_derivatives(x64):
  x, bias = jnp.arange(6.0).reshape(3, 2), jnp.asarray([0.5, -1.0])
  hessian = jax.hessian(lambda b: jnp.sum(bias_add(x, b) ** 3))(bias)
  np.testing.assert_allclose(hessian, np.diag(6 * np.sum(np.asarray(x) + np.asarray(bias), 0)), atol=1e-9)


@pytest.mark.parametrize('bits', ['bfloat16', 'float16'])
def test_the_gradient_is_summed_in_float32(bits):
  """In bfloat16 a sum of ones would stand still at 256, in float16 at 2,048 where no compiler widens it."""
  x, bias = jnp.ones((4, 32, 32, 2), bits), jnp.ones(2, bits)
  gradient = jax.grad(lambda b: bias_add(x, b).astype(jnp.float32).sum())
  value = jax.jit(gradient)(bias)
  assert value.dtype == bits and (np.array(value, np.float32) == 4096).all()
  sums = [equation for equation in jax.make_jaxpr(gradient)(bias).eqns if equation.primitive.name == 'reduce_sum']
  assert sums and {str(equation.invars[0].aval.dtype) for equation in sums} == {'float32'}
