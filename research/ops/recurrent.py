"""Recurrences whose weight gradient is one matrix product after the scan, instead of a sum of one per step."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Bool, Float

from research.ops.standardize import standardized
from research.types import PyTree

Carry = tuple[Array, ...]  # each [batch, hidden]; the first is the output


class Cell(NamedTuple):
  """The elementwise part of a step, given its projected input `x` and recurrent product `s`, both [batch, gates]."""

  step: Callable[[PyTree, Array, Array, Carry], Carry]  # (params, x, s, carry) -> carry
  linearized: Callable[..., tuple[Carry, PyTree]]  # same arguments -> (carry, residuals)
  transposed: Callable[[PyTree, Carry], tuple]  # (residuals, d_carry) -> (d_params, d_x, d_s, d_carry)


def _by_autodiff(step: Callable[[PyTree, Array, Array, Carry], Carry]) -> Cell:
  return Cell(step, partial(jax.vjp, step), lambda pullback, d_carry: pullback(d_carry))


def _elman(params: PyTree, x: Array, s: Array, carry: Carry) -> Carry:
  return (jnp.tanh(x + s),)


def _gru(bias: Array, x: Array, s: Array, carry: Carry) -> Carry:
  return _gru_linearized(bias, x, s, carry)[0]


def _gru_linearized(bias: Array, x: Array, s: Array, carry: Carry) -> tuple[Carry, PyTree]:
  """Computes the derivatives of h with respect to the gates here, as for the LSTM."""
  (h,) = carry
  (x_r, x_z, x_n), (s_r, s_z, s_n) = jnp.split(x, 3, -1), jnp.split(s, 3, -1)
  reset, update = jax.nn.sigmoid(x_r + s_r), jax.nn.sigmoid(x_z + s_z)
  s_n = s_n + bias[None]
  new = jnp.tanh(x_n + reset * s_n)
  by_new = (1 - update) * (1 - new * new)
  by_gates = jnp.concatenate([by_new * s_n * reset * (1 - reset), (h - new) * update * (1 - update), by_new], -1)
  return (new + update * (h - new),), (by_gates, reset, update)


def _gru_transposed(kept: PyTree, d_carry: Carry) -> tuple:
  (by_gates, reset, update), (d_h,) = kept, d_carry
  d_x = by_gates * jnp.concatenate([d_h] * 3, -1)
  d_r, d_z, d_n = jnp.split(d_x, 3, -1)
  d_n = d_n * reset
  return d_n.sum(0), d_x, jnp.concatenate([d_r, d_z, d_n], -1), (d_h * update,)


def _lstm(params: PyTree, x: Array, s: Array, carry: Carry) -> Carry:
  return _lstm_linearized(params, x, s, carry)[0]


def _lstm_linearized(params: PyTree, x: Array, s: Array, carry: Carry) -> tuple[Carry, PyTree]:
  """Computes the derivatives of c and h with respect to the gates here, where all intermediate values are at hand."""
  _, before = carry
  i, f, g, o = jnp.split(x + s, 4, -1)
  i, f, g, o = jax.nn.sigmoid(i), jax.nn.sigmoid(f), jnp.tanh(g), jax.nn.sigmoid(o)
  c = f * before + i * g
  t = jnp.tanh(c)
  by_gates = jnp.concatenate([g * i * (1 - i), before * f * (1 - f), i * (1 - g * g), t * o * (1 - o)], -1)
  return (o * t, c), (by_gates, f, o * (1 - t * t))


def _lstm_transposed(kept: PyTree, d_carry: Carry) -> tuple:
  (by_gates, f, h_by_c), (d_h, d_c) = kept, d_carry
  d_c = d_c + d_h * h_by_c
  d_gates = by_gates * jnp.concatenate([d_c, d_c, d_c, d_h], -1)
  return (), d_gates, d_gates, (jnp.zeros_like(d_h), d_c * f)


def _layer_norm_lstm(params: PyTree, x: Array, s: Array, carry: Carry) -> Carry:
  of_input, of_recurrent, of_cell = params
  _, c = carry
  i, f, g, o = jnp.split(_normalized(x, *of_input) + _normalized(s, *of_recurrent), 4, -1)
  c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
  return jax.nn.sigmoid(o) * jnp.tanh(_normalized(c, *of_cell)), c


def _normalized(x: Array, scale: Array, bias: Array) -> Array:
  """Mean 0 and variance 1 over the last axis, then scaled and shifted."""
  return (standardized(x, (-1,), 1e-6)[0] * scale[None] + bias[None]).astype(x.dtype)


# h' = tanh(x + s) (Elman 1990).
elman = _by_autodiff(_elman)

# Gates in the order reset, update, new; `params` is a bias [units] scaled by the reset gate (Cho et al. 2014; cuDNN).
gru = Cell(_gru, _gru_linearized, _gru_transposed)

# Gates in the order input, forget, cell, output (Hochreiter and Schmidhuber 1997; Gers et al. 2000).
lstm = Cell(_lstm, _lstm_linearized, _lstm_transposed)

# Inputs, recurrent products and cells are normalized (Ba, Kiros and Hinton 2016, equations 20 to 22); `params` has
# scale and bias for each of the three.
layer_norm_lstm = _by_autodiff(_layer_norm_lstm)


def recurrence(
  cell: Cell,
  params: PyTree,
  x: Float[Array, 'batch length gates'],
  kernel: Float[Array, 'hidden gates'],
  carry: Carry,
  mask: Bool[Array, 'batch length'] | None = None,
  dropout_mask: Float[Array, 'batch hidden'] | None = None,
  reverse: bool = False,
) -> tuple[Float[Array, 'batch length hidden'], Carry]:
  """Outputs of all steps and the final carry of `cell`, which gets `x` and its own last output times `kernel`.

  Args:
    params: the cell's parameters other than the kernel.
    x: inputs, already projected, in one product for all steps.
    mask: where False, the carry is kept and the output is 0.
    dropout_mask: factor on the output fed to the next step, the same for all steps (variational dropout, Gal and
      Ghahramani 2016). A constant: it has no gradient, and neither does `mask`.
    reverse: runs from the last step to the first.

  Supports reverse-mode derivatives of any order; as a `custom_vjp`, it does not support forward mode.
  """
  mask = mask if mask is None else mask.T
  outputs, last = _recurrence(cell, reverse, params, x.swapaxes(0, 1), kernel, carry, mask, dropout_mask)
  return outputs.swapaxes(0, 1), last


def _held(mask: Array | None, new: Carry, old: Carry) -> Carry:
  """`new` where the mask is True, else `old`."""
  if mask is None:
    return new
  return tuple(jnp.where(mask[:, None], after, before) for after, before in zip(new, old, strict=True))


def _times(h: Array, dropout_mask: Array | None) -> Array:
  return h if dropout_mask is None else h * dropout_mask


def _shown(outputs: Array, mask: Array | None) -> Array:
  return outputs if mask is None else jnp.where(mask[..., None], outputs, 0)


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _recurrence(cell, reverse, params, x, kernel, carry, mask, dropout_mask):
  def step(carry, inputs):
    x, mask = inputs
    new = _held(mask, cell.step(params, x, _times(carry[0], dropout_mask) @ kernel, carry), carry)
    return new, new[0]

  last, outputs = lax.scan(step, carry, (x, mask), reverse=reverse)
  return _shown(outputs, mask), last


def _forward(cell, reverse, params, x, kernel, carry, mask, dropout_mask):
  """The same scan, saving each step's residuals."""

  def step(carry, inputs):
    x, mask = inputs
    new, kept = cell.linearized(params, x, _times(carry[0], dropout_mask) @ kernel, carry)
    new = _held(mask, new, carry)
    return new, (new[0], kept)

  last, (outputs, kept) = lax.scan(step, carry, (x, mask), reverse=reverse)
  return (_shown(outputs, mask), last), (params, kernel, carry[0], outputs, kept, mask, dropout_mask)


def _backward(cell, reverse, residuals, cotangents):
  params, kernel, first, outputs, kept, mask, dropout_mask = residuals
  d_outputs, d_last = cotangents
  transposed = kernel.T

  def step(sums, inputs):
    (d_h, *d_rest), d_params = sums
    d_output, kept, mask = inputs
    d_new = (d_h + d_output, *d_rest)
    zeros = jax.tree.map(jnp.zeros_like, d_new)
    more, d_x, d_s, d_old = cell.transposed(kept, _held(mask, d_new, zeros))
    d_old = (d_old[0] + _times(d_s @ transposed, dropout_mask), *d_old[1:])
    if mask is not None:
      d_old = jax.tree.map(jnp.add, d_old, _held(mask, zeros, d_new))
    return (d_old, jax.tree.map(jnp.add, d_params, more)), (d_s if d_x is d_s else (d_x, d_s))

  # Sum in at least float32: with fewer bits, a sum over that many steps would stagnate.
  wide = lambda leaf: jnp.zeros(leaf.shape, jnp.promote_types(leaf.dtype, jnp.float32))  # noqa: E731
  begin = (d_last, jax.tree.map(wide, params))
  (d_carry, d_params), d_steps = lax.scan(step, begin, (_shown(d_outputs, mask), kept, mask), reverse=not reverse)
  d_x, d_s = d_steps if isinstance(d_steps, tuple) else (d_steps, d_steps)
  before = (outputs[1:], first[None]) if reverse else (first[None], outputs[:-1])
  before = jnp.concatenate(before)[: len(outputs)]  # empty without steps
  fed_back = _times(before, dropout_mask if dropout_mask is None else dropout_mask[None])
  d_kernel = _rows(fed_back).T @ _rows(d_s)
  d_params = jax.tree.map(lambda total, leaf: total.astype(leaf.dtype), d_params, params)
  return d_params, d_x, d_kernel, d_carry, None, None


def _rows(steps: Float[Array, 'length batch hidden']) -> Float[Array, '_ hidden']:
  """One row per step and example, grouped by example so that the batch stays sharded over devices."""
  return steps.swapaxes(0, 1).reshape(-1, steps.shape[-1])


_recurrence.defvjp(_forward, _backward)
