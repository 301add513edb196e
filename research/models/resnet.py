"""Residual networks: He et al. 2015 (v1) and 2016 (v2), for large and for small images."""

from collections.abc import Sequence
from typing import Any

from flax import linen as nn
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Float, Num

from research.errors import ConfigError, check_choice, check_counts
from research.models.norms import NORMS, norm
from research.models.remat import remat
from research.ops.layers import Conv, Dense
from research.ops.pooling import max_pool

# Depth: (bottleneck blocks, blocks of each stage), He et al. 2015, table 1.
IMAGENET = {
  18: (False, (2, 2, 2, 2)),
  34: (False, (3, 4, 6, 3)),
  50: (True, (3, 4, 6, 3)),
}

# Depth: blocks of each stage, for images of 28 to 32 pixels: 6 n + 2 layers, sec. 4.2.
SMALL = {8: (1, 1, 1), 14: (2, 2, 2), 20: (3, 3, 3)}

STEMS = ('plain', 'pooled', 'large')


class Block(nn.Module):
  """A residual block: two 3x3 convolutions, or with `bottleneck` 1x1, 3x3 and 1x1 to four times the channels.

  The order is convolution, norm, ReLU (v1) or with `preactivation` norm, ReLU, convolution (v2). Where the shape
  changes, the shortcut is a 1x1 convolution; the 3x3 convolution carries the stride.
  """

  channels: int
  stride: int = 1
  bottleneck: bool = False
  preactivation: bool = False
  norm: str = 'batch'
  zero_init_residual: bool = True
  axis_name: str = ''

  @nn.compact
  def __call__(
    self, x: Float[Array, 'batch height width channels'], train: bool = False
  ) -> Float[Array, 'batch _ _ features']:
    return self.version2(x, train) if self.preactivation else self.version1(x, train)

  def layers(self) -> list[tuple[int, int, int]]:
    """(channels, kernel, stride) of each convolution."""
    if self.bottleneck:
      return [(self.channels, 1, 1), (self.channels, 3, self.stride), (4 * self.channels, 1, 1)]
    return [(self.channels, 3, self.stride), (self.channels, 3, 1)]

  def version1(self, x: Array, train: bool) -> Array:
    y, layers = x, self.layers()
    for number, (channels, kernel, stride) in enumerate(layers):
      last = number == len(layers) - 1
      scale_init = nn.initializers.zeros if last and self.zero_init_residual else nn.initializers.ones
      y = convolution(channels, kernel, stride, f'conv_{number}')(y)
      y = norm(self.norm, channels, train, f'norm_{number}', self.axis_name, scale_init)(y)
      y = y if last else nn.relu(y)
    if x.shape != y.shape:
      x = convolution(y.shape[-1], 1, self.stride, 'shortcut')(x)
      x = norm(self.norm, y.shape[-1], train, 'shortcut_norm', self.axis_name)(x)
    return nn.relu(x + y)

  def version2(self, x: Array, train: bool) -> Array:
    y, layers = x, self.layers()
    for number, (channels, kernel, stride) in enumerate(layers):
      y = nn.relu(norm(self.norm, y.shape[-1], train, f'norm_{number}', self.axis_name)(y))
      if not number and (self.stride > 1 or x.shape[-1] != layers[-1][0]):
        x = convolution(layers[-1][0], 1, self.stride, 'shortcut')(y)
      y = convolution(channels, kernel, stride, f'conv_{number}')(y)
    return x + y


class ResNet(nn.Module):
  """A residual network that classifies images."""

  stage_sizes: Sequence[int]  # residual blocks of each stage; every stage but the first halves the image
  num_classes: int
  width: int = 64  # channels of the first stage; every stage doubles them
  bottleneck: bool = False
  preactivation: bool = False  # v2
  norm: str = 'batch'  # 'batch' or 'group'
  stem: str = 'plain'  # 3x3 convolution; 'pooled' halves the image after it; 'large' quarters it, with a 7x7 one
  zero_init_residual: bool = True  # v1: each block starts as the identity (Goyal et al. 2017, sec. 5.1)
  axis_name: str = ''  # mapped axis (pmap) over which batch norm averages its statistics
  remat: str = ''  # rematerialization policy of the blocks; see remat.py

  def __post_init__(self):
    check_counts(stage_sizes=self.stage_sizes, num_classes=self.num_classes, width=self.width)
    check_choice('norm', self.norm, NORMS)
    check_choice('stem', self.stem, STEMS)
    super().__post_init__()

  @nn.compact
  def __call__(
    self, inputs: Num[ArrayLike, 'batch height width channels'], train: bool = False
  ) -> Float[Array, 'batch classes']:
    x, block = self.begin(inputs, train), remat(ResNet.block, self.remat)
    for stage, blocks in enumerate(self.stage_sizes):
      for number in range(blocks):
        stride = 2 if stage and not number else 1
        x = block(self, x, sum(self.stage_sizes[:stage]) + number, self.width * 2**stage, stride, train)
    if self.preactivation:
      x = nn.relu(norm(self.norm, x.shape[-1], train, 'head_norm', self.axis_name)(x))
    return Dense(self.num_classes, name='head')(x.mean((1, 2)))

  def block(self, x: Array, number: int, channels: int, stride: int, train: bool) -> Array:
    options = (self.bottleneck, self.preactivation, self.norm, self.zero_init_residual, self.axis_name)
    return Block(channels, stride, *options, name=f'block_{number}')(x, train)

  def begin(self, inputs: Array, train: bool) -> Array:
    large = self.stem == 'large'
    x = convolution(self.width, *(7, 2) if large else (3, 1), 'stem_conv')(inputs)
    if not self.preactivation:
      x = nn.relu(norm(self.norm, self.width, train, 'stem_norm', self.axis_name)(x))
    if self.stem == 'plain':
      return x
    return max_pool(x, (3, 3), (2, 2), ((1, 1), (1, 1))) if large else max_pool(x, (2, 2))


def convolution(channels: int, kernel: int, stride: int, name: str) -> Conv:
  """A convolution followed by a norm: no bias, and symmetric padding at any stride."""
  margin = (kernel // 2, kernel // 2)
  init = nn.initializers.variance_scaling(2.0, 'fan_out', 'normal')  # He et al. 2015
  size, strides, padding = (kernel, kernel), (stride, stride), (margin, margin)
  return Conv(channels, size, strides, padding, use_bias=False, kernel_init=init, name=name)


def resnet(depth: int, num_classes: int, **options: Any) -> ResNet:
  """The ResNet of He et al. with `depth` layers: 18, 34, 50 for ImageNet; 8, 14, 20 for images of 28-32 pixels.

  `options` are fields of ResNet. Raises ConfigError for a depth that is in neither table.
  """
  if depth in SMALL:
    return ResNet(**{'stage_sizes': SMALL[depth], 'num_classes': num_classes, 'width': 16, **options})
  if depth not in IMAGENET:
    raise ConfigError(f'depth={depth}: no such ResNet; available: {[*SMALL, *IMAGENET]}')
  bottleneck, stage_sizes = IMAGENET[depth]
  return ResNet(stage_sizes, num_classes, **{'bottleneck': bottleneck, 'stem': 'large', **options})
