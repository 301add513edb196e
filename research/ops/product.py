"""A matrix product whose gradient with respect to the matrix needs no transposed copy."""

import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from research.ops.kernels import choose


def product(x: Float[Array, '*shape inputs'], kernel: Float[Array, 'inputs outputs']) -> Float[Array, '*shape outputs']:
  """`x @ kernel`; derivatives of every order, forward and reverse."""
  return choose('product', _of_rows, jnp.matmul, x, kernel) if x.ndim > 2 else x @ kernel


def _of_rows(x: Array, kernel: Array) -> Array:
  """Flattens the leading axes: for a sum over several axes, XLA's CPU compiler transposes a factor of the gradient.

  It fuses the transposed copy with the computation of the factor, in the wrong memory order: for a layer before a GELU,
  this includes the whole derivative of the GELU and takes twice as long as the product.
  """
  return (x.reshape(-1, x.shape[-1]) @ kernel).reshape(*x.shape[:-1], kernel.shape[-1])
