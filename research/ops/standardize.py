"""Standardization to mean 0 and variance 1."""

import jax.numpy as jnp
from jax import Array, lax
from jax.typing import ArrayLike
from jaxtyping import Bool, Float


def standardized(
  x: Float[ArrayLike, '*shape'],
  axes: tuple[int, ...],
  epsilon: float,
  mask: Bool[Array, '*shape'] | None = None,
  axis_name: str = '',
) -> tuple[Float[Array, '*shape'], Float[Array, '...'], Float[Array, '...']]:
  """`x` with mean 0 and variance 1 over `axes`; also the mean and the variance, both with `axes` of size 1.

  All are at least float32. The variance is the mean squared deviation: for a standard deviation of 1 around 2,000,
  E[x^2] - E[x]^2 loses all precision in float32. (Linen's `use_fast_variance=False` does the same, but under pmap
  averages the means of devices regardless of their masks.)

  Args:
    epsilon: added to the variance.
    mask: False for values to ignore; if all are ignored, mean and variance are 0.
    axis_name: mapped axis of devices that each hold a part of the values (pmap).
  """
  x = jnp.asarray(x).astype(jnp.promote_types(x.dtype, jnp.float32))

  def mean(values: Float[Array, '*shape']) -> Float[Array, '...']:
    total = jnp.sum(values, axes, keepdims=True, where=mask)
    count = values.size / total.size if mask is None else jnp.sum(mask, axes, total.dtype, keepdims=True)
    total, count = lax.psum((total, count), axis_name) if axis_name else (total, count)
    return total / jnp.maximum(count, 1)

  middle = mean(x)
  centered = x - middle
  variance = mean(jnp.square(centered))
  return centered * lax.rsqrt(variance + epsilon), middle, variance
