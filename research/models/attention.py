"""Attention over the positions of a sequence."""

from flax import linen as nn
from jax import Array
from jaxtyping import Bool, Float

from research.ops.logical import logical


class SelfAttention(nn.Module):
  """Multi-head self-attention (Vaswani et al. 2017, section 3.2); a mesh splits it by heads."""

  num_heads: int
  dropout: float = 0.0  # part of the attention weights that is dropped in training

  @nn.compact
  def __call__(
    self,
    inputs: Float[Array, 'batch length features'],
    mask: Bool[Array, 'batch _ length length'] | None = None,
    train: bool = False,
  ) -> Float[Array, 'batch length features']:
    """`mask` is True where the position of a row may look at that of a column."""
    init, zeros = nn.initializers.lecun_normal(), nn.initializers.zeros
    attention = nn.MultiHeadDotProductAttention(
      self.num_heads,
      dropout_rate=self.dropout,
      kernel_init=logical(init, 'inputs', 'heads', 'head_features'),
      bias_init=logical(zeros, 'heads', 'head_features'),
      out_kernel_init=logical(init, 'heads', 'head_features', None),
      out_bias_init=logical(zeros, None),
    )
    return attention(inputs, mask=mask, deterministic=not train)
