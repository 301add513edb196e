"""Operations and bytes counted against the arithmetic of each layer."""

import jax
import jax.numpy as jnp
from jax import lax

from research.train.flops import count_bytes, count_flops


def array(*shape):
  return jax.ShapeDtypeStruct(shape, jnp.float32)


def convolve(inputs, kernel, stride=1, groups=1):
  layout = ('NHWC', 'HWIO', 'NHWC')
  strides = (stride, stride)
  return lax.conv_general_dilated(
    inputs, kernel, strides, 'VALID', feature_group_count=groups, dimension_numbers=layout
  )


def test_products():
  assert count_flops(jnp.matmul, array(3, 4), array(4, 5)) == 2 * 3 * 4 * 5
  assert count_flops(lambda a, b: jnp.einsum('bij,bjk->bik', a, b), array(7, 3, 4), array(7, 4, 5)) == 7 * 2 * 3 * 4 * 5


def test_convolutions():
  assert count_flops(convolve, array(2, 8, 8, 3), array(3, 3, 3, 7)) == 2 * 2 * 6 * 6 * 7 * 27
  depthwise = lambda x, k: convolve(x, k, groups=6)  # noqa: E731
  assert count_flops(depthwise, array(2, 8, 8, 6), array(3, 3, 1, 6)) == 2 * 2 * 6 * 6 * 6 * 9


def test_gradients_of_a_strided_convolution():
  def loss(kernel, inputs):
    return convolve(inputs, kernel, stride=2).sum()

  arguments = array(3, 3, 3, 7), array(2, 9, 9, 3)
  forward = 2 * 2 * 4 * 4 * 7 * 27
  assert count_flops(jax.grad(loss), *arguments) == 2 * forward
  # one product for each of the kernel's entries at each input, of which a stride of 2 x 2 leaves a quarter
  assert count_flops(jax.grad(loss, 1), *arguments) == forward + 2 * 2 * 9 * 9 * 3 * 9 * 7 // 4


def recurrent(weights, carry):
  return lax.scan(lambda carry, _: (jnp.tanh(carry @ weights), None), carry, None, length=10)[0].sum()


def test_the_body_of_a_scan_counts_every_turn():
  arguments = array(4, 4), array(3, 4)
  assert count_flops(jax.jit(recurrent), *arguments) == 10 * 2 * 3 * 16
  assert count_flops(jax.jit(jax.grad(recurrent)), *arguments) == 3 * 10 * 2 * 3 * 16  # two products back
  assert count_flops(jax.grad(jax.checkpoint(recurrent)), *arguments) == 4 * 10 * 2 * 3 * 16  # and forward again


def test_the_longest_branch_counts():
  def branch(flag, x):
    return lax.cond(flag, lambda x: x @ x @ x, lambda x: x @ x, x)

  assert count_flops(branch, jax.ShapeDtypeStruct((), bool), array(5, 5)) == 2 * 2 * 125


def test_every_device_of_a_mapped_axis_counts():
  assert count_flops(jax.pmap(lambda x: x @ x), array(8, 5, 5)) == 8 * 2 * 125


def test_the_body_of_a_while_counts_once_and_what_has_no_product_nothing():
  loop = lambda x: lax.while_loop(lambda x: x.sum() < 9, lambda x: x @ x, x)  # noqa: E731
  assert count_flops(loop, array(5, 5)) == 2 * 125
  assert count_flops(lambda x: jnp.tanh(x) + x, array(5, 5)) == 0


def test_products_move_their_operands_and_results():
  half = jax.ShapeDtypeStruct((3, 4), jnp.bfloat16)
  assert count_bytes(lambda a, b: jnp.tanh(a @ b), array(3, 4), array(4, 5)) == 4 * (3 * 4 + 4 * 5 + 3 * 5)
  assert count_bytes(lambda a: a @ a.T, half) == 2 * (2 * 3 * 4 + 3 * 3)
  assert count_bytes(convolve, array(2, 8, 8, 3), array(3, 3, 3, 7)) == 4 * (2 * 64 * 3 + 27 * 7 + 2 * 36 * 7)
  assert count_bytes(recurrent, array(4, 4), array(3, 4)) == 10 * 4 * (16 + 2 * 12)
