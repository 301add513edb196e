"""Convolutional time series classifiers: FCN, ResNet, LSTM-FCN and TCN.

Steps past a series' end are zeroed before every convolution and excluded from every mean, so padding changes no result.
"""

from collections.abc import Sequence

import jax.numpy as jnp
from flax import linen as nn
from jax import Array
from jaxtyping import Bool, Float, Num

from research.errors import ConfigError, check_choice, check_counts, check_range
from research.models.activations import ACTIVATIONS, activation
from research.models.norms import NORMS, norm
from research.models.remat import remat
from research.models.rnn import GATES, RNN, Padded, unpadded
from research.ops.layers import Conv1D, Dense
from research.ops.padding import valid

Mask = Bool[Array, 'batch _'] | None  # True up to a series' end; None if there is no padding
Series = tuple[Float[Array, 'batch _ _'], Mask]
Inputs = Num[Array, 'batch _ _'] | Padded


class Block(nn.Module):
  """A convolution, a norm and an activation, aware of strides and padding."""

  channels: int
  kernel_size: int
  stride: int = 1
  activation: str = 'relu'
  norm: str = 'batch'
  axis_name: str = ''

  @nn.compact
  def __call__(self, series: Series, train: bool = False) -> Series:
    x, mask = series
    x = Conv1D(self.channels, self.kernel_size, self.stride, use_bias=not self.norm, name='conv')(x)
    mask = None if mask is None else mask[:, :: self.stride]
    x = _normalized((x, mask), self.norm, train, 'conv_norm', self.axis_name)
    return _ended(activation(self.activation)(x), mask), mask


class FCN(nn.Module):
  """The fully convolutional network of Wang, Yan and Oates (2017, figure 1b): blocks, then the mean over time.

  Raises ConfigError for an unknown activation or norm, a size below 1, a dropout that is not below 1, and unless there
  is a kernel for each number of channels.
  """

  num_classes: int
  channels: Sequence[int] = (128, 256, 128)  # of each block
  kernel_sizes: Sequence[int] = (8, 5, 3)  # of each block
  stride: int = 1  # of the first block
  activation: str = 'relu'
  norm: str = 'batch'  # 'batch', 'layer', 'group' or ''
  dropout_rate: float = 0.0  # of the pooled features
  axis_name: str = ''  # mapped axis (pmap) over which batch norm averages its statistics
  remat: str = ''  # rematerialization policy of the blocks; see remat.py

  def __post_init__(self):
    check_counts(
      num_classes=self.num_classes, channels=self.channels, kernel_sizes=self.kernel_sizes, stride=self.stride
    )
    if len(self.channels) != len(self.kernel_sizes):
      raise ConfigError(
        f'kernel_sizes={self.kernel_sizes}: must be {len(self.channels)}, one for each of channels={self.channels}'
      )
    check_range('dropout_rate', self.dropout_rate, below=1)
    check_choice('activation', self.activation, ACTIVATIONS)
    check_choice('norm', self.norm, NORMS)
    super().__post_init__()

  @nn.compact
  def __call__(self, inputs: Inputs, train: bool = False) -> Float[Array, 'batch classes']:
    x = nn.Dropout(self.dropout_rate)(self.features(inputs, train), deterministic=not train)
    return Dense(self.num_classes, name='head')(x)

  def features(self, inputs: Inputs, train: bool) -> Float[Array, 'batch features']:
    series, block = begin(inputs), remat(FCN.block, self.remat)
    for number, (channels, kernel_size) in enumerate(zip(self.channels, self.kernel_sizes, strict=True)):
      series = block(self, series, number, channels, kernel_size, 1 if number else self.stride, train)
    return mean_over_time(*series)

  def block(self, series: Series, number: int, channels: int, kernel_size: int, stride: int, train: bool) -> Series:
    options = (self.activation, self.norm, self.axis_name)
    return Block(channels, kernel_size, stride, *options, name=f'block_{number}')(series, train)


class LSTMFCN(FCN):
  """A fully convolutional network in parallel with a small recurrent one (Karim, Majumdar, Darabi and Chen 2018).

  With `shuffle` (section III-A of the paper) the recurrent half reads each channel of the whole series as one step of
  `length` features, truncated or zero-padded. Without it, it reads the series step by step.
  """

  length: int = 0  # of a series, for the shuffled recurrent half
  shuffle: bool = True
  cell: str = 'lstm'  # or another of research.models.rnn
  hidden_size: int = 8  # of the recurrent half: 8, 64 or 128 in the paper
  recurrent_dropout_rate: float = 0.8  # of its last output

  def __post_init__(self):
    check_counts(hidden_size=self.hidden_size)
    check_choice('cell', self.cell, GATES)
    check_range('recurrent_dropout_rate', self.recurrent_dropout_rate, below=1)
    if self.shuffle and self.length < 1:
      raise ConfigError(f'length={self.length}: must be that of a series, for a shuffled recurrent half')
    super().__post_init__()

  @nn.compact
  def __call__(self, inputs: Inputs, train: bool = False) -> Float[Array, 'batch classes']:
    read = nn.Dropout(self.recurrent_dropout_rate)(self.reading(inputs, train), deterministic=not train)
    x = jnp.concatenate([self.features(inputs, train), read], -1)
    return Dense(self.num_classes, name='head')(nn.Dropout(self.dropout_rate)(x, deterministic=not train))

  def reading(self, inputs: Inputs, train: bool) -> Float[Array, 'batch hidden']:
    values, mask = begin(inputs)
    rnn = RNN(self.hidden_size, cell=self.cell, name='rnn')
    if not self.shuffle:
      return last_over_time(rnn(values, unpadded(inputs)[1], train=train)[0], mask)
    missing = max(0, self.length - values.shape[1])
    steps = jnp.pad(values[:, : self.length], ((0, 0), (0, missing), (0, 0))).swapaxes(1, 2)
    return rnn(steps, train=train)[0][:, -1]


class ResNet1D(nn.Module):
  """The residual network of Wang, Yan and Oates (2017, figure 1c): three convolutions a block, a norm on the shortcut.

  Raises ConfigError as FCN does.
  """

  num_classes: int
  channels: Sequence[int] = (64, 128, 128)  # of each residual block
  kernel_sizes: Sequence[int] = (8, 5, 3)  # within a block
  stride: int = 1  # of the first convolution
  activation: str = 'relu'
  norm: str = 'batch'  # 'batch', 'layer', 'group' or ''
  dropout_rate: float = 0.0  # of the pooled features
  axis_name: str = ''  # mapped axis (pmap) over which batch norm averages its statistics
  remat: str = ''  # rematerialization policy of the residual blocks; see remat.py

  def __post_init__(self):
    check_counts(
      num_classes=self.num_classes, channels=self.channels, kernel_sizes=self.kernel_sizes, stride=self.stride
    )
    check_range('dropout_rate', self.dropout_rate, below=1)
    check_choice('activation', self.activation, ACTIVATIONS)
    check_choice('norm', self.norm, NORMS)
    super().__post_init__()

  @nn.compact
  def __call__(self, inputs: Inputs, train: bool = False) -> Float[Array, 'batch classes']:
    series, block = begin(inputs), remat(ResNet1D.block, self.remat)
    for number, channels in enumerate(self.channels):
      series = block(self, series, number, channels, 1 if number else self.stride, train)
    x = nn.Dropout(self.dropout_rate)(mean_over_time(*series), deterministic=not train)
    return Dense(self.num_classes, name='head')(x)

  def block(self, series: Series, number: int, channels: int, stride: int, train: bool) -> Series:
    x, options, name = series, (self.norm, self.axis_name), f'block_{number}'
    for layer, kernel_size in enumerate(self.kernel_sizes):
      kind = self.activation if layer + 1 < len(self.kernel_sizes) else 'identity'
      x = Block(channels, kernel_size, 1 if layer else stride, kind, *options, name=f'{name}_layer_{layer}')(x, train)
    if stride > 1 or series[0].shape[-1] != channels:
      shortcut, _ = Block(channels, 1, stride, 'identity', *options, name=f'{name}_shortcut')(series, train)
    else:
      shortcut = _normalized(series, self.norm, train, f'{name}_shortcut_norm', self.axis_name)
    y, mask = x
    return _ended(activation(self.activation)(y + shortcut), mask), mask


class TCN(nn.Module):
  """The temporal convolutional network of Bai, Kolter and Koltun (2018): causal, doubling the dilation in each block.

  A block is two causal convolutions with weight norm, each followed by the activation and by dropout of whole
  channels, and a shortcut (figure 1). Linen's weight norm initializes filters with norm 1. The receptive field of an
  output is its own step and the (kernel - 1) * 2 * (2 ** blocks - 1) steps before it.
  """

  num_classes: int
  channels: Sequence[int] = (32, 32, 32, 32)  # of each block
  kernel_size: int = 7
  pooling: str = 'last'  # 'last', 'mean', or '' for outputs at every step
  activation: str = 'relu'
  dropout_rate: float = 0.0  # of whole channels after each convolution
  remat: str = ''  # rematerialization policy of the blocks; see remat.py

  def __post_init__(self):
    check_counts(num_classes=self.num_classes, channels=self.channels, kernel_size=self.kernel_size)
    check_choice('pooling', self.pooling, ('last', 'mean', ''))
    check_range('dropout_rate', self.dropout_rate, below=1)
    check_choice('activation', self.activation, ACTIVATIONS)
    super().__post_init__()

  @nn.compact
  def __call__(self, inputs: Inputs, train: bool = False) -> Float[Array, 'batch *length classes']:
    (x, mask), block = begin(inputs), remat(TCN.block, self.remat)
    for number, channels in enumerate(self.channels):
      x = block(self, x, number, channels, train)
    if self.pooling:
      x = last_over_time(x, mask) if self.pooling == 'last' else mean_over_time(x, mask)
    return Dense(self.num_classes, name='head')(x)

  def block(
    self, x: Float[Array, 'batch length _'], number: int, channels: int, train: bool
  ) -> Float[Array, 'batch length channels']:
    act, y = activation(self.activation), x
    for layer in range(2):
      name = f'block_{number}_conv_{layer}'
      conv = Conv1D(channels, self.kernel_size, dilation=2**number, causal=True, name=name)
      y = act(nn.WeightNorm(conv, name=f'{name}_norm')(y))
      y = nn.Dropout(self.dropout_rate, broadcast_dims=(1,))(y, deterministic=not train)
    return act(y + (x if x.shape == y.shape else Dense(channels, name=f'block_{number}_shortcut')(x)))


def begin(inputs: Inputs) -> Series:
  """Values zeroed past the end of each series, and the mask."""
  values, lengths = unpadded(inputs)
  mask = None if lengths is None else valid(lengths, values.shape[1])
  return _ended(values, mask), mask


def mean_over_time(x: Float[Array, 'batch length channels'], mask: Mask) -> Float[Array, 'batch channels']:
  if mask is None:
    return x.mean(1)
  return _ended(x, mask).sum(1) / jnp.maximum(mask.sum(1, keepdims=True), 1).astype(x.dtype)


def last_over_time(x: Float[Array, 'batch length channels'], mask: Mask) -> Float[Array, 'batch channels']:
  if mask is None:
    return x[:, -1]
  last = jnp.maximum(mask.sum(1) - 1, 0)[:, None, None]
  return jnp.take_along_axis(x, last, axis=1, mode='promise_in_bounds')[:, 0]


def _normalized(
  series: Series, kind: str, train: bool, name: str, axis_name: str
) -> Float[Array, 'batch length channels']:
  """Normalizes a series; steps past its end are excluded from the statistics."""
  x, mask = series
  layer = norm(kind, x.shape[-1], train, name, axis_name)
  if mask is None or kind not in ('batch', 'group'):  # the others have no statistics over time
    return layer(x)
  return layer(x, mask=jnp.broadcast_to(mask[..., None], x.shape))


def _ended(x: Num[Array, 'batch length channels'], mask: Mask) -> Num[Array, 'batch length channels']:
  return x if mask is None else jnp.where(mask[..., None], x, 0)
