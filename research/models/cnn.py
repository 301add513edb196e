"""Convolutional classifiers: LeNet-5 and a plain stack. Residual networks are in `resnet.py`."""

from collections.abc import Sequence

from flax import linen as nn
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Float, Num

from research.errors import check_choice, check_counts, check_each, check_range
from research.models.activations import ACTIVATIONS, activation
from research.models.norms import NORMS, norm
from research.models.remat import remat
from research.ops.layers import Conv, Dense
from research.ops.pooling import max_pool


class LeNet5(nn.Module):
  """LeNet-5 (LeCun et al. 1998, fig. 2) with a linear head and plain average pooling.

  The first convolution pads the images; the paper pads them to 32x32 beforehand.
  """

  num_classes: int
  activation: str = 'tanh'

  def __post_init__(self):
    check_counts(num_classes=self.num_classes)
    check_choice('activation', self.activation, ACTIVATIONS)
    super().__post_init__()

  @nn.compact
  def __call__(
    self, inputs: Num[ArrayLike, 'batch 28 28 channels'], train: bool = False
  ) -> Float[Array, 'batch classes']:
    act = activation(self.activation)
    x = act(Conv(6, (5, 5), name='conv_0')(inputs))
    x = nn.avg_pool(x, (2, 2), (2, 2))
    x = act(Conv(16, (5, 5), padding='VALID', name='conv_1')(x))
    x = nn.avg_pool(x, (2, 2), (2, 2))
    x = x.reshape(x.shape[0], -1)
    for number, width in enumerate((120, 84)):
      x = act(Dense(width, name=f'dense_{number}')(x))
    return Dense(self.num_classes, name='head')(x)


class ConvNet(nn.Module):
  """Stages of convolutions, each followed by 2x2 max pooling, then dense layers."""

  channels: Sequence[int]  # of each stage
  num_classes: int
  hidden_sizes: Sequence[int] = (128,)  # of the hidden dense layers
  convs_per_stage: int = 1  # convolutions in a stage
  kernel_size: int = 3  # height and width of a filter
  activation: str = 'relu'
  norm: str = ''  # 'batch', 'layer', 'group' or '', after every layer but the last
  channel_dropout_rate: float = 0.0  # rate at which whole channels are dropped after each stage
  dropout_rate: float = 0.0  # before each dense layer
  axis_name: str = ''  # mapped axis (pmap) over which batch norm averages its statistics
  remat: str = ''  # rematerialization policy of the stages; see remat.py

  def __post_init__(self):
    check_counts(
      channels=self.channels,
      num_classes=self.num_classes,
      convs_per_stage=self.convs_per_stage,
      kernel_size=self.kernel_size,
    )
    check_each(hidden_sizes=self.hidden_sizes)
    check_range('channel_dropout_rate', self.channel_dropout_rate, below=1)
    check_range('dropout_rate', self.dropout_rate, below=1)
    check_choice('activation', self.activation, ACTIVATIONS)
    check_choice('norm', self.norm, NORMS)
    super().__post_init__()

  @nn.compact
  def __call__(
    self, inputs: Num[ArrayLike, 'batch height width channels'], train: bool = False
  ) -> Float[Array, 'batch classes']:
    act, stage = activation(self.activation), remat(ConvNet.stage, self.remat)
    x = inputs
    for number, channels in enumerate(self.channels):
      x = stage(self, x, number, channels, train)
    x = x.reshape(x.shape[0], -1)
    for number, width in enumerate(self.hidden_sizes):
      x = nn.Dropout(self.dropout_rate)(x, deterministic=not train)
      x = Dense(width, use_bias=not self.norm, name=f'dense_{number}')(x)
      x = act(norm(self.norm, width, train, f'dense_norm_{number}', self.axis_name)(x))
    x = nn.Dropout(self.dropout_rate)(x, deterministic=not train)
    return Dense(self.num_classes, name='head')(x)

  def stage(
    self, x: Num[ArrayLike, 'batch height width _'], number: int, channels: int, train: bool
  ) -> Float[Array, 'batch _ _ channels']:
    for layer in range(number * self.convs_per_stage, (number + 1) * self.convs_per_stage):
      x = Conv(channels, (self.kernel_size, self.kernel_size), use_bias=not self.norm, name=f'conv_{layer}')(x)
      x = activation(self.activation)(norm(self.norm, channels, train, f'norm_{layer}', self.axis_name)(x))
    x = max_pool(x, (2, 2))
    return nn.Dropout(self.channel_dropout_rate, broadcast_dims=(1, 2))(x, deterministic=not train)
