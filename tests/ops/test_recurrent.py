"""The recurrences against plain scans in numpy's order, to all derivatives that there are."""

import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from research.ops import recurrent

LENGTH, BATCH, UNITS = 4, 3, 4
CELLS = {'elman': (1, 1), 'gru': (3, 1), 'lstm': (4, 2), 'layer_norm_lstm': (4, 2)}  # gates, arrays of the carry
MASK = np.arange(LENGTH) < np.array([[4], [1], [2]])


def arguments(name: str) -> tuple:
  """Parameters, projected inputs, kernel, carry."""
  gates, memories = CELLS[name]
  keys = iter(jax.random.split(jax.random.key(0), 20))
  normal = lambda *shape: jax.random.normal(next(keys), shape)  # noqa: E731
  sizes = (gates * UNITS, gates * UNITS, UNITS)
  params = {'gru': lambda: normal(UNITS), 'layer_norm_lstm': lambda: tuple((1 + normal(n), normal(n)) for n in sizes)}
  carry = tuple(normal(BATCH, UNITS) for _ in range(memories))
  return params.get(name, tuple)(), normal(BATCH, LENGTH, gates * UNITS), normal(UNITS, gates * UNITS), carry


def plain(cell, mask, dropped, reverse, params, x, kernel, carry):
  """A loop in Python, which autodiff takes apart by itself."""
  outputs = [None] * LENGTH
  for t in reversed(range(LENGTH)) if reverse else range(LENGTH):
    new = cell.step(params, x[:, t], (carry[0] if dropped is None else carry[0] * dropped) @ kernel, carry)
    keep = jnp.ones((BATCH, 1), bool) if mask is None else mask[:, t, None]
    carry = tuple(jnp.where(keep, a, b) for a, b in zip(new, carry, strict=True))
    outputs[t] = jnp.where(keep, carry[0], 0)
  return jnp.stack(outputs, 1), carry


def fast(cell, mask, dropped, reverse, params, x, kernel, carry):
  return recurrent.recurrence(cell, params, x, kernel, carry, mask, dropped, reverse)


def loss(function, *given):
  """A number that every output and every part of the last carry moves."""
  outputs, carry = function(*given)
  weight = jnp.sin(jnp.arange(outputs.size, dtype=outputs.dtype)).reshape(outputs.shape)
  return jnp.sum(weight * outputs**2) + sum(jnp.sum(jnp.cos(part)) for part in carry)


def gradient_size(function, *given):
  return sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(jax.grad(loss_of(function), (0, 1, 2, 3))(*given)))


def value_and_gradient(function, *given):
  """Both of one program; the value alone takes another path through a custom derivative."""
  return function(*given), jax.grad(loss_of(function), (0, 1, 2, 3))(*given)


def loss_of(function):
  return partial(loss, function)


def sigmoid(x):
  return 1 / (1 + np.exp(-x))


def normalized(x, scale, bias):
  return (x - x.mean(-1, keepdims=True)) / x.std(-1, keepdims=True) * scale + bias


def textbook(name, params, x, s, carry):
  """The new carry by the equations, in numpy."""
  if name == 'elman':
    return (np.tanh(x + s),)
  if name == 'gru':
    (x_r, x_z, x_n), (s_r, s_z, s_n) = np.split(x, 3, -1), np.split(s, 3, -1)
    z = sigmoid(x_z + s_z)
    return ((1 - z) * np.tanh(x_n + sigmoid(x_r + s_r) * (s_n + params)) + z * carry[0],)
  of_input, of_recurrent, of_cell = params or ((1, 0),) * 3
  norm = normalized if params else lambda x, scale, bias: x
  i, f, g, o = np.split(norm(x, *of_input) + norm(s, *of_recurrent), 4, -1)
  c = sigmoid(f) * carry[1] + sigmoid(i) * np.tanh(g)
  return sigmoid(o) * np.tanh(norm(c, *of_cell)), c


@pytest.mark.parametrize('name', CELLS)
def test_a_step_is_that_of_the_textbooks(name):
  params, x, kernel, carry = arguments(name)
  given = params, x[:, 0], carry[0] @ kernel, carry
  expected = textbook(name, *jax.tree.map(partial(np.asarray, dtype=float), given))
  jax.tree.map(partial(np.testing.assert_allclose, atol=1e-5), getattr(recurrent, name).step(*given), expected)


@pytest.mark.parametrize('reverse', [False, True])
@pytest.mark.parametrize('masked', [False, True])
@pytest.mark.parametrize('name', CELLS)
def test_values_and_derivatives_are_those_of_a_plain_loop(name, masked, reverse, x64):
  given = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), arguments(name))
  dropped = jnp.asarray(2.0 * (np.arange(BATCH * UNITS) % 3 > 0).reshape(BATCH, UNITS)) if masked else None
  ways = [
    partial(way, getattr(recurrent, name), jnp.asarray(MASK) if masked else None, dropped, reverse)
    for way in (plain, fast)
  ]
  expected, found = (jax.jit(partial(value_and_gradient, way))(*given) for way in ways)
  jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-9, atol=1e-12), found, expected)


@pytest.mark.parametrize('name', CELLS)
def test_second_derivatives(name, x64):
  given = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), arguments(name))
  ways = [partial(way, getattr(recurrent, name), None, None, False) for way in (plain, fast)]
  expected, found = (jax.jit(jax.grad(partial(gradient_size, way), (1, 2)))(*given) for way in ways)
  jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-8, atol=1e-10), found, expected)


@pytest.mark.parametrize('reverse', [False, True])
def test_a_piece_of_no_steps_has_gradients_of_zero(reverse):
  params, x, kernel, carry = arguments('lstm')
  way = partial(fast, recurrent.lstm, None, None, reverse)
  _, d_kernel, d_carry = jax.grad(loss_of(way), (1, 2, 3))(params, x[:, :0], kernel, carry)
  assert not d_kernel.any()
  jax.tree.map(np.testing.assert_allclose, d_carry, jax.tree.map(lambda part: -jnp.sin(part), carry))


def test_forward_mode_is_refused_with_a_clear_error():
  given = arguments('lstm')
  with pytest.raises(TypeError, match='forward-mode'):
    jax.jvp(lambda x: fast(recurrent.lstm, None, None, False, given[0], x, *given[2:])[0], given[1:2], given[1:2])


def test_the_weight_gradient_is_one_product_outside_the_scan():
  """Autodiff of a plain scan would add up a matrix like the kernel in every step."""
  given = arguments('lstm')
  text = str(jax.make_jaxpr(jax.grad(loss_of(partial(fast, recurrent.lstm, None, None, False)), 2))(*given))
  inside = [line for line in text.splitlines() if 'dot_general' in line]
  products = [line for line in inside if f'f32[{UNITS},{4 * UNITS}] = dot_general' in line]
  assert len(products) == 1 and len(inside) == 3  # forward and backward step, and this one


def test_devices_that_share_a_batch_send_nothing_but_the_gradient_of_the_weights():
  mesh = jax.make_mesh((3,), ('data',), (AxisType.Auto,), devices=jax.devices()[:3])
  params, x, kernel, carry = arguments('lstm')
  split = (NamedSharding(mesh, PartitionSpec(*axes)) for axes in (('data',), (), ('data',)))
  x, kernel, carry = map(jax.device_put, (x, kernel, carry), split)
  gradient = jax.jit(jax.grad(lambda *given: jnp.sum(recurrent.recurrence(recurrent.lstm, params, *given)[0]), 1))
  program = gradient.lower(x, kernel, carry).compile().as_text()
  sent = re.findall(r'= (\S+) (all-\w+|collective-\w+|reduce-scatter)\(', program)
  assert [(shape.split('{')[0], how) for shape, how in sent] == [(f'f32[{UNITS},{4 * UNITS}]', 'all-reduce')]


@pytest.mark.parametrize('name', ['gru', 'layer_norm_lstm'])
def test_sums_over_many_steps_do_not_stand_still_in_bfloat16(name):
  """Of what every step has: ones come back for each step, and bfloat16 counts by ones to 256 alone."""
  length = 512
  params, _, kernel, carry = arguments(name)
  ones = recurrent.Cell(None, lambda params, x, s, carry: (carry, ()), lambda kept, d: (ones_like(params), *given, d))
  ones_like = lambda tree: jax.tree.map(lambda leaf: jnp.ones_like(leaf, jnp.bfloat16), tree)  # noqa: E731
  params, kernel, carry = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), (params, kernel, carry))
  given = (jnp.zeros((BATCH, kernel.shape[1]), jnp.bfloat16),) * 2
  x = jnp.zeros((BATCH, length, kernel.shape[1]), jnp.bfloat16)
  summed = jax.grad(lambda params: recurrent.recurrence(ones, params, x, kernel, carry)[0].sum().astype(float))(params)
  for leaf in jax.tree.leaves(summed):
    np.testing.assert_array_equal(leaf.astype(float), length)
    assert leaf.dtype == jnp.bfloat16
