"""Attention: for each query a mean of values, weighted by the softmax of its products with the keys."""

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float


def attention(
  queries: Float[Array, 'batch length heads features'],
  keys: Float[Array, 'batch keys heads features'],
  values: Float[Array, 'batch keys heads features'],
  mask: Bool[Array, '#batch #heads #length #keys'] | None = None,
  causal: bool = False,
) -> Float[Array, 'batch length heads features']:
  """Scaled dot-product attention (Vaswani et al. 2017, section 3.2.1).

  Args:
    mask: True where a query may look at a key. A query that may look at none gives 0, and has no gradient.
    causal: no query looks at a key that comes after it, counted from the first.
  """
  contexts = jax.nn.dot_product_attention(queries, keys, values, mask=mask, is_causal=causal)
  if mask is None:
    return contexts
  seen = mask & _causal(queries, keys) if causal else mask
  return jnp.where(seen.any(-1, keepdims=True).swapaxes(1, 2), contexts, 0)


def _causal(queries: Array, keys: Array) -> Bool[Array, '1 1 length keys']:
  return jnp.tri(queries.shape[1], keys.shape[1], dtype=bool)[None, None]
