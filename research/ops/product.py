"""A product with a matrix whose gradient by it needs no transposed copy."""

import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from research.ops.kernels import choose


def product(x: Float[Array, '*shape inputs'], kernel: Float[Array, 'inputs outputs']) -> Float[Array, '*shape outputs']:
  """`x @ kernel`; derivatives of every order, forward and reverse."""
  return choose('product', _of_rows, jnp.matmul, x, kernel) if x.ndim > 2 else x @ kernel


def _of_rows(x: Array, kernel: Array) -> Array:
  """The axes before the last in one: summed over several, XLA's CPU compiler transposes a factor of the gradient.

  That copy takes in whatever computes the factor, element by element in the wrong order: of a layer that feeds a GELU,
  the whole derivative of the GELU, twice as long as the product.
  """
  return (x.reshape(-1, x.shape[-1]) @ kernel).reshape(*x.shape[:-1], kernel.shape[-1])
