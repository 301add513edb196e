"""Attention over the positions of a sequence."""

import functools
from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jax import Array
from jaxtyping import Bool, Float

from research.errors import ConfigError, check_counts, check_range
from research.ops.attention import attention
from research.ops.logical import logical


class SelfAttention(nn.Module):
  """Multi-head self-attention (Vaswani et al. 2017, section 3.2); a mesh splits it by heads.

  Raises ConfigError for a dropout rate that is not below 1 and if num_heads does not divide the features.
  """

  num_heads: int
  dropout_rate: float = 0.0  # of the attention weights

  def __post_init__(self):
    check_counts(num_heads=self.num_heads)
    check_range('dropout_rate', self.dropout_rate, below=1)
    super().__post_init__()

  @nn.compact
  def __call__(
    self,
    inputs: Float[Array, 'batch length features'],
    mask: Bool[Array, 'batch _ length length'] | None = None,
    train: bool = False,
  ) -> Float[Array, 'batch length features']:
    """`mask` is True where a query (row) may attend to a key (column); a query that may attend to none gives 0."""
    if inputs.shape[-1] % self.num_heads:
      raise ConfigError(f'num_heads={self.num_heads}: must divide the {inputs.shape[-1]} features')
    init, zeros = nn.initializers.lecun_normal(), nn.initializers.zeros
    layer = nn.MultiHeadDotProductAttention(
      self.num_heads,
      dropout_rate=self.dropout_rate,
      kernel_init=logical(init, 'inputs', 'heads', 'head_features'),
      bias_init=logical(zeros, 'heads', 'head_features'),
      out_kernel_init=logical(init, 'heads', 'head_features', None),
      out_bias_init=logical(zeros, None),
      attention_fn=_attend,
    )
    nn.share_scope(self, layer)  # paths are attention/query, not attention/MultiHeadDotProductAttention_0/query
    outputs = layer(inputs, mask=mask, deterministic=not train)
    return outputs if mask is None else jnp.where(mask.any((1, 3))[..., None], outputs, 0)


@functools.wraps(nn.dot_product_attention)  # Linen passes only options that the signature names, such as dropout
def _attend(
  queries: Float[Array, 'batch length heads features'],
  *others: Array,
  mask: Array | None = None,
  deterministic: bool = False,
  **options: Any,
) -> Float[Array, 'batch length heads features']:
  """Attention with dropout, which gives 0 for a fully masked query; Linen's softmax would attend to every key."""
  if deterministic:
    return attention(queries, *others, mask)
  contexts = nn.dot_product_attention(queries, *others, mask=mask, deterministic=False, **options)
  return contexts if mask is None else jnp.where(mask.any(-1, keepdims=True).swapaxes(1, 2), contexts, 0)
