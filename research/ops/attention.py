"""Scaled dot-product attention."""

from functools import partial

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float

from research.ops.kernels import choose


def attention(
  queries: Float[Array, 'batch length heads features'],
  keys: Float[Array, 'batch keys heads features'],
  values: Float[Array, 'batch keys heads features'],
  mask: Bool[Array, '#batch #heads #length #keys'] | None = None,
  causal: bool = False,
) -> Float[Array, 'batch length heads features']:
  """Scaled dot-product attention (Vaswani et al. 2017, section 3.2.1); reverse-mode derivatives of any order.

  Args:
    mask: True where a query may attend to a key. A fully masked query returns 0 and has no gradient.
    causal: a query attends only to keys at its own position or earlier.
  """
  return choose('attention', _fast, _plain, queries, keys, values, mask, causal=causal)


def _plain(queries: Array, keys: Array, values: Array, mask: Array | None, causal: bool) -> Array:
  contexts = jax.nn.dot_product_attention(queries, keys, values, mask=mask, is_causal=causal)
  if mask is None:
    return contexts
  return jnp.where(_seen(queries, keys, mask, causal).any(-1, keepdims=True).swapaxes(1, 2), contexts, 0)


@partial(jax.custom_vjp, nondiff_argnums=(4,))
def _fast(queries: Array, keys: Array, values: Array, mask: Array | None, causal: bool) -> Array:
  return _forward(queries, keys, values, mask, causal)[0]


def _forward(queries: Array, keys: Array, values: Array, mask: Array | None, causal: bool) -> tuple[Array, tuple]:
  """Weights are [batch, heads, keys, length], so that no product here or below transposes an array of their size."""
  weights = _weights(queries, keys, mask, causal)
  contexts = values.transpose(0, 2, 3, 1) @ weights
  return contexts.transpose(0, 3, 1, 2), (queries, keys, values, weights, contexts)


def _backward(causal: bool, kept: tuple, cotangent: Array) -> tuple:
  queries, keys, values, weights, contexts = kept
  by_features = cotangent.transpose(0, 2, 3, 1)
  d_values = weights @ cotangent.transpose(0, 2, 1, 3)
  d_weights = values.transpose(0, 2, 1, 3) @ by_features
  d_scores = weights * (d_weights - jnp.sum(contexts * by_features, -2, keepdims=True)) * queries.shape[-1] ** -0.5
  d_queries = keys.transpose(0, 2, 3, 1) @ d_scores
  d_keys = d_scores @ queries.transpose(0, 2, 1, 3)
  return d_queries.transpose(0, 3, 1, 2), d_keys.transpose(0, 2, 1, 3), d_values.transpose(0, 2, 1, 3), None


_fast.defvjp(_forward, _backward)


def _weights(queries: Array, keys: Array, mask: Array | None, causal: bool) -> Float[Array, 'batch heads keys length']:
  wide = jnp.promote_types(queries.dtype, jnp.float32)
  scaled = (queries * queries.shape[-1] ** -0.5).transpose(0, 2, 3, 1)
  scores = jnp.matmul(keys.transpose(0, 2, 1, 3), scaled, preferred_element_type=wide)
  if (seen := _seen(queries, keys, mask, causal)) is not None:
    scores = jnp.where(seen.swapaxes(-1, -2), scores, -jnp.inf)
  most = jnp.maximum(scores.max(-2, keepdims=True), jnp.finfo(wide).min)
  weights = jnp.exp(scores - most)  # all 0 for a fully masked query; otherwise the largest is 1
  return (weights / jnp.maximum(weights.sum(-2, keepdims=True), 1)).astype(queries.dtype)


def _seen(queries: Array, keys: Array, mask: Array | None, causal: bool) -> Array | None:
  """Where a query may attend to a key; None for everywhere."""
  if not causal:
    return mask
  earlier = jnp.tri(queries.shape[1], keys.shape[1], dtype=bool)[None, None]
  return earlier if mask is None else mask & earlier
