"""Models of families that the library does not have yet."""

import jax.numpy as jnp
from flax import linen as nn
from jax import Array
from jaxtyping import Float, Int

from research.models.norms import BatchNorm, LayerNorm
from research.ops.attention import attention
from research.ops.layers import ConvTranspose, Dense, Embed


class GPT(nn.Module):
  """Pre-norm decoder with learned positions and an untied head (Radford et al. 2019)."""

  vocab_size: int = 256
  num_layers: int = 4
  embed_dim: int = 256
  num_heads: int = 8
  max_length: int = 128

  @nn.compact
  def __call__(
    self, tokens: Int[Array, 'batch length'], train: bool = False
  ) -> Float[Array, 'batch length vocabulary']:
    positions = self.param('positions', nn.initializers.normal(0.02), (self.max_length, self.embed_dim))
    x = Embed(self.vocab_size, self.embed_dim, name='embed')(tokens) + positions[None, : tokens.shape[1]]
    for number in range(self.num_layers):
      x = Block(self.num_heads, name=f'block_{number}')(x)
    return Dense(self.vocab_size, name='head')(LayerNorm(name='norm')(x))


class Block(nn.Module):
  """Causal self-attention and an MLP of four times the width, both residual."""

  num_heads: int

  @nn.compact
  def __call__(self, x: Float[Array, 'batch length width']) -> Float[Array, 'batch length width']:
    embed_dim = x.shape[-1]
    projected = Dense(3 * embed_dim, name='qkv')(LayerNorm(name='attention_norm')(x))
    queries, keys, values = jnp.moveaxis(projected.reshape(*x.shape[:-1], 3, self.num_heads, -1), -3, 0)
    x += Dense(embed_dim, name='out')(attention(queries, keys, values, causal=True).reshape(x.shape))
    hidden = nn.gelu(Dense(4 * embed_dim, name='up')(LayerNorm(name='mlp_norm')(x)))  # the tanh approximation
    return x + Dense(embed_dim, name='down')(hidden)


class Generator(nn.Module):
  """DCGAN's generator for images [batch, 28, 28, 1] (Radford et al. 2016)."""

  channels: tuple[int, int] = (256, 128)

  @nn.compact
  def __call__(self, noise: Float[Array, 'batch noise'], train: bool = False) -> Float[Array, 'batch 28 28 1']:
    first, second = self.channels
    x = Dense(7 * 7 * first, use_bias=False, name='project')(noise).reshape(-1, 7, 7, first)
    x = nn.relu(BatchNorm(train, name='norm_0')(x))
    x = ConvTranspose(second, (4, 4), (2, 2), use_bias=False, name='deconv_0')(x)
    x = nn.relu(BatchNorm(train, name='norm_1')(x))
    return jnp.tanh(ConvTranspose(1, (4, 4), (2, 2), name='deconv_1')(x))
