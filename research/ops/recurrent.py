"""Recurrences whose weight gradient is one matrix product after the scan, where autodiff would sum one a step."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Bool, Float

PyTree = Any
Carry = tuple[Array, ...]  # each [batch, units]; the first is the output
# (params, projected input, projected output of the step before, both [batch, gates], carry) -> carry
Cell = Callable[[PyTree, Array, Array, Carry], Carry]


def elman(params: PyTree, x: Array, s: Array, carry: Carry) -> Carry:
  """h' = tanh(x + s) (Elman 1990)."""
  return (jnp.tanh(x + s),)


def gru(bias: Array, x: Array, s: Array, carry: Carry) -> Carry:
  """Gates in the order reset, update, new; `bias` [units] is inside the reset gate (Cho et al. 2014; cuDNN)."""
  (h,) = carry
  (x_r, x_z, x_n), (s_r, s_z, s_n) = jnp.split(x, 3, -1), jnp.split(s, 3, -1)
  reset, update = jax.nn.sigmoid(x_r + s_r), jax.nn.sigmoid(x_z + s_z)
  new = jnp.tanh(x_n + reset * (s_n + jnp.broadcast_to(bias, s_n.shape)))
  return (new + update * (h - new),)


def lstm(params: PyTree, x: Array, s: Array, carry: Carry) -> Carry:
  """Gates in the order input, forget, cell, output (Hochreiter and Schmidhuber 1997; Gers et al. 2000)."""
  _, c = carry
  i, f, g, o = jnp.split(x + s, 4, -1)
  c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
  return jax.nn.sigmoid(o) * jnp.tanh(c), c


def layer_norm_lstm(params: PyTree, x: Array, s: Array, carry: Carry) -> Carry:
  """An LSTM with normalised inputs, recurrent products and cells (Ba, Kiros and Hinton 2016, equations 20 to 22).

  `params` has scale and bias for each of the three.
  """
  of_input, of_recurrent, of_cell = params
  _, c = carry
  i, f, g, o = jnp.split(_normalised(x, *of_input) + _normalised(s, *of_recurrent), 4, -1)
  c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
  return jax.nn.sigmoid(o) * jnp.tanh(_normalised(c, *of_cell)), c


def _normalised(x: Array, scale: Array, bias: Array) -> Array:
  """Mean 0 and variance 1 over the last axis, then scaled and shifted."""
  mean = x.mean(-1, keepdims=True)
  centred = x - mean
  deviation = jnp.sqrt(jnp.square(centred).mean(-1, keepdims=True) + 1e-6)
  return centred / deviation * scale[None] + bias[None]


def recurrence(
  cell: Cell,
  params: PyTree,
  x: Float[Array, 'length batch gates'],
  kernel: Float[Array, 'units gates'],
  carry: Carry,
  mask: Bool[Array, 'length batch'] | None = None,
  dropped: Float[Array, 'batch units'] | None = None,
  reverse: bool = False,
) -> tuple[Float[Array, 'length batch units'], Carry]:
  """Outputs of all steps and the last carry of `cell`, fed with `x` and with its own output times `kernel`.

  Args:
    x: inputs, projected already: one product for all steps. Time comes first.
    mask: where it is False the carry is held and the output is 0.
    dropped: what the output is multiplied by on its way to the next step, the same for all steps
      (variational dropout, Gal and Ghahramani 2016).
    reverse: from the last step to the first.

  Derivatives are reverse-mode, of any order; forward mode is refused by JAX, for a custom derivative has none.
  """
  return _recurrence(cell, reverse, params, x, kernel, carry, mask, dropped)


def _step(cell: Cell, mask: Array | None, params: PyTree, x: Array, s: Array, carry: Carry) -> Carry:
  new = cell(params, x, s, carry)
  if mask is None:
    return new
  return tuple(jnp.where(mask[:, None], after, before) for after, before in zip(new, carry, strict=True))


def _fed_back(h: Array, dropped: Array | None) -> Array:
  return h if dropped is None else h * dropped


def _masked(outputs: Array, mask: Array | None) -> Array:
  return outputs if mask is None else jnp.where(mask[..., None], outputs, 0)


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _recurrence(cell, reverse, params, x, kernel, carry, mask, dropped):
  def step(carry, inputs):
    x, mask = inputs
    carry = _step(cell, mask, params, x, _fed_back(carry[0], dropped) @ kernel, carry)
    return carry, carry[0]

  carry, outputs = lax.scan(step, carry, (x, mask), reverse=reverse)
  return _masked(outputs, mask), carry


def _forward(cell, reverse, params, x, kernel, carry, mask, dropped):
  """The same scan, which keeps of every step what its derivative needs."""

  def step(carry, inputs):
    x, mask = inputs
    s = _fed_back(carry[0], dropped) @ kernel
    new, pullback = jax.vjp(partial(_step, cell, mask), params, x, s, carry)
    return new, (new[0], carry[0], pullback)

  last, (outputs, before, pullbacks) = lax.scan(step, carry, (x, mask), reverse=reverse)
  return (_masked(outputs, mask), last), (params, kernel, before, pullbacks, mask, dropped)


def _backward(cell, reverse, residuals, cotangents):
  params, kernel, before, pullbacks, mask, dropped = residuals
  d_outputs, d_carry = cotangents

  def step(carry, inputs):
    (d_h, *d_rest), d_params = carry
    d_output, pullback = inputs
    d_step, d_x, d_s, d_carry = pullback((d_h + d_output, *d_rest))
    d_carry = (d_carry[0] + _fed_back(d_s @ kernel.T, dropped), *d_carry[1:])
    return (d_carry, jax.tree.map(jnp.add, d_params, d_step)), (d_x, d_s)

  zeros = jax.tree.map(jnp.zeros_like, params)
  (d_carry, d_params), (d_x, d_s) = lax.scan(
    step, (d_carry, zeros), (_masked(d_outputs, mask), pullbacks), reverse=not reverse
  )
  fed_back = _fed_back(before, dropped if dropped is None else dropped[None])
  d_kernel = fed_back.reshape(-1, kernel.shape[0]).T @ d_s.reshape(-1, kernel.shape[1])
  return d_params, d_x, d_kernel, d_carry, None, None


_recurrence.defvjp(_forward, _backward)
