"""Linen layers using the kernels in this folder; parameter names and shapes are those of `flax.linen`."""

from collections.abc import Sequence

from flax import linen as nn
from flax.linen.dtypes import promote_dtype
from jax import Array, lax
from jax.typing import ArrayLike
from jaxtyping import Float, Integer, Num

from research.errors import ConfigError, check_counts
from research.ops.bias import bias_add
from research.ops.conv import convolve, convolve_transposed
from research.ops.gather import take
from research.ops.logical import logical
from research.ops.product import product


class Dense(nn.Module):
  """A dense (linear) layer."""

  features: int
  use_bias: bool = True
  kernel_init: nn.initializers.Initializer = nn.initializers.lecun_normal()
  bias_init: nn.initializers.Initializer = nn.initializers.zeros

  def __post_init__(self):
    check_counts(features=self.features)
    super().__post_init__()

  @nn.compact
  def __call__(self, x: Num[ArrayLike, '*shape inputs']) -> Float[Array, '*shape features']:
    if not x.shape[-1]:
      raise ConfigError(f'a dense layer of inputs {x.shape}: they are empty; pool or crop less')
    init = logical(self.kernel_init, 'inputs', 'features')
    kernel = self.param('kernel', init, (x.shape[-1], self.features))
    x, kernel = promote_dtype(x, kernel)
    return _with_bias(self, product(x, kernel), self.bias_init)


class Embed(nn.Module):
  """An embedding of `num_embeddings` tokens; any other token gives NaN."""

  num_embeddings: int
  features: int
  embedding_init: nn.initializers.Initializer = nn.linear.default_embed_init

  def __post_init__(self):
    check_counts(num_embeddings=self.num_embeddings, features=self.features)
    super().__post_init__()

  def setup(self):
    init = logical(self.embedding_init, 'vocab', None)
    self.embedding = self.param('embedding', init, (self.num_embeddings, self.features))

  def __call__(self, tokens: Integer[ArrayLike, ' *shape']) -> Float[Array, '*shape features']:
    return take(self.embedding, tokens)

  def attend(self, x: Float[Array, '*shape features']) -> Float[Array, '*shape vocabulary']:
    """Dot products with all embeddings, as logits with tied weights."""
    return product(x, self.embedding.T)


class Conv(nn.Module):
  """A 2D convolution."""

  features: int
  kernel_size: tuple[int, int]
  strides: tuple[int, int] = (1, 1)
  padding: str | Sequence[tuple[int, int]] = 'SAME'
  use_bias: bool = True
  kernel_init: nn.initializers.Initializer = nn.initializers.he_normal()

  def __post_init__(self):
    check_counts(features=self.features, kernel_size=self.kernel_size, strides=self.strides)
    super().__post_init__()

  @nn.compact
  def __call__(self, x: Num[ArrayLike, 'batch height width channels']) -> Float[Array, 'batch _ _ features']:
    kernel = self.param('kernel', self.kernel_init, (*self.kernel_size, x.shape[-1], self.features))
    x, kernel = promote_dtype(x, kernel)
    return _with_bias(self, convolve(x, kernel, self.strides, self.padding))


class ConvTranspose(nn.Module):
  """A 2D transposed convolution, which upsamples by its strides."""

  features: int
  kernel_size: tuple[int, int]
  strides: tuple[int, int] = (1, 1)
  padding: str | Sequence[tuple[int, int]] = 'SAME'
  use_bias: bool = True
  kernel_init: nn.initializers.Initializer = nn.initializers.he_normal()

  def __post_init__(self):
    check_counts(features=self.features, kernel_size=self.kernel_size, strides=self.strides)
    super().__post_init__()

  @nn.compact
  def __call__(self, x: Num[ArrayLike, 'batch height width channels']) -> Float[Array, 'batch _ _ features']:
    kernel = self.param('kernel', self.kernel_init, (*self.kernel_size, x.shape[-1], self.features))
    x, kernel = promote_dtype(x, kernel)
    return _with_bias(self, convolve_transposed(x, kernel, self.strides, self.padding))


class Conv1D(nn.Module):
  """A 1D convolution: centered, or `causal`, where an output depends only on its own and earlier steps.

  Series are zero-padded. With a stride, outputs are those at steps 0, stride, ... for any length.
  """

  features: int
  kernel_size: int
  stride: int = 1
  dilation: int = 1
  causal: bool = False
  use_bias: bool = True
  kernel_init: nn.initializers.Initializer = nn.initializers.he_normal()

  def __post_init__(self):
    check_counts(features=self.features, kernel_size=self.kernel_size, stride=self.stride, dilation=self.dilation)
    super().__post_init__()

  @nn.compact
  def __call__(self, x: Num[ArrayLike, 'batch length channels']) -> Float[Array, 'batch _ features']:
    kernel = self.param('kernel', self.kernel_init, (self.kernel_size, x.shape[-1], self.features))
    x, kernel = promote_dtype(x, kernel)
    reach = self.dilation * (self.kernel_size - 1)
    margin = (reach, 0) if self.causal else (reach // 2, reach - reach // 2)
    names, dilation = ('NWC', 'WIO', 'NWC'), (self.dilation,)
    y = lax.conv_general_dilated(x, kernel, (self.stride,), (margin,), None, dilation, names)
    return _with_bias(self, y)


def _with_bias(
  layer: Dense | Conv | ConvTranspose | Conv1D, y: Array, init: nn.initializers.Initializer = nn.initializers.zeros
) -> Array:
  if not layer.use_bias:
    return y
  names = ('features',) if isinstance(layer, Dense) else (None,)
  bias = layer.param('bias', logical(init, *names), (layer.features,))
  return bias_add(y, bias.astype(y.dtype))
