"""Forecasting of many variables at once, with one model shared by all variables."""

import math
from typing import NamedTuple

import jax.numpy as jnp
from flax import linen as nn
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Float

from research.errors import ConfigError, check_counts, check_range
from research.models.rnn import RNN
from research.ops.layers import Dense

Past = Float[ArrayLike, 'batch context variables']
Forecast = Float[Array, 'batch horizon variables outputs']


class Level(NamedTuple):
  """Location and scale of each variable within its window: [batch, variables, 1]."""

  middle: Float[Array, 'batch variables 1']
  spread: Float[Array, 'batch variables 1']


class PatchRNN(nn.Module):
  """A recurrent network over patches of the past, added to a linear forecast.

  Each variable is a separate series to one shared network (channel independence); a step is a patch of the past: Nie
  et al. (2023), 'A Time Series is Worth 64 Words', arXiv:2211.14730. A window is forecast relative to its own level, so
  a series may drift: Kim et al. (2022), 'Reversible Instance Normalization', without its parameters. The linear
  forecast is initialized to zero, which predicts the level itself.

  Raises ConfigError if patch_size does not divide the context, or a dropout rate is not below 1.
  """

  rnn: RNN
  horizon: int
  num_outputs: int = 1  # per step and variable: the mean and the quantiles
  patch_size: int = 24  # steps
  dropout_rate: float = 0.0  # of the embedded patches and of the features before the forecast

  def __post_init__(self):
    check_counts(horizon=self.horizon, num_outputs=self.num_outputs, patch_size=self.patch_size)
    check_range('dropout_rate', self.dropout_rate, below=1)
    super().__post_init__()

  @nn.compact
  def __call__(self, inputs: Past, train: bool = False) -> Forecast:
    batch, context, variables = inputs.shape
    if context % self.patch_size:
      raise ConfigError(f'patch_size={self.patch_size}: must divide the context of {context} steps')
    level = level_of(inputs)
    past = relative(inputs, level)
    patches = past.reshape(batch * variables, -1, self.patch_size)
    embedded = nn.Dropout(self.dropout_rate)(
      Dense(self.rnn.hidden_size, name='embed')(patches), deterministic=not train
    )
    states, _ = self.rnn(embedded, train=train)
    last = nn.Dropout(self.dropout_rate)(states[:, -1], deterministic=not train).reshape(batch, variables, -1)
    numbers = self.horizon * self.num_outputs
    linear = Dense(numbers, use_bias=False, kernel_init=nn.initializers.zeros, name='linear')(past)
    return absolute(Dense(numbers, name='head')(last) + linear, level, self.num_outputs)


class DLinear(nn.Module):
  """Linear maps of the past's moving average and of the residual: Zeng et al. (2023), arXiv:2205.13504.

  The variables share both maps, as in the paper's tables. Raises ConfigError for a window that is not an odd number.
  """

  horizon: int
  num_outputs: int = 1
  window: int = 25  # steps of the moving average; odd

  def __post_init__(self):
    check_counts(horizon=self.horizon, num_outputs=self.num_outputs)
    check_odd('window', self.window)
    super().__post_init__()

  @nn.compact
  def __call__(self, inputs: Past, train: bool = False) -> Forecast:
    past = jnp.swapaxes(jnp.asarray(inputs), 1, 2)
    trend = moving_average(past, self.window)
    numbers = self.horizon * self.num_outputs
    seasonal = Dense(numbers, name='seasonal')(past - trend)
    return as_forecast(Dense(numbers, name='trend')(trend) + seasonal, self.num_outputs)


def level_of(inputs: Past) -> Level:
  """Last value and standard deviation of each variable within its window."""
  past = jnp.swapaxes(jnp.asarray(inputs), 1, 2)
  return Level(past[..., -1:], jnp.sqrt(past.var(-1, keepdims=True) + 1e-5))


def relative(inputs: Past, level: Level) -> Float[Array, 'batch variables context']:
  """The past of each variable, centered and scaled by its level."""
  return (jnp.swapaxes(jnp.asarray(inputs), 1, 2) - level.middle) / level.spread


def absolute(values: Float[Array, 'batch variables _'], level: Level, num_outputs: int) -> Forecast:
  """A relative forecast in the variables' own units."""
  return as_forecast(values * level.spread + level.middle, num_outputs)


def as_forecast(values: Float[Array, 'batch variables _'], num_outputs: int) -> Forecast:
  """Values [batch, variables, horizon * num_outputs] as [batch, horizon, variables, num_outputs]."""
  return jnp.swapaxes(values.reshape(*values.shape[:2], -1, num_outputs), 1, 2)


def moving_average(
  past: Float[Array, 'batch variables context'], steps: int
) -> Float[Array, 'batch variables context']:
  """Centered moving average over `steps` steps; the ends are padded with the edge values."""
  check_odd('window', steps)
  padded = jnp.pad(past, ((0, 0), (0, 0), (steps // 2, steps // 2)), mode='edge')
  return nn.avg_pool(jnp.swapaxes(padded, 1, 2), (steps,)).swapaxes(1, 2)


def check_odd(name: str, steps: int) -> None:
  """Raises ConfigError unless `steps` is odd."""
  if steps < 1 or steps % 2 == 0:
    raise ConfigError(f'{name}={steps}: must be an odd number of steps')


class LogVariance(nn.Module):
  """Log variance of the next step: a linear function of the last step's features plus a correction by a network.

  The linear part alone is the regression of Corsi (2009) if the features are mean squares over several horizons. Both
  parts are initialized to zero, so the initial forecast is `mean`.
  """

  rnn: RNN
  mean: float  # logarithm of the mean variance
  dropout_rate: float = 0.0  # of the network's features

  def __post_init__(self):
    check_range('dropout_rate', self.dropout_rate, below=1)
    check_range('mean', self.mean, above=-math.inf)
    super().__post_init__()

  @nn.compact
  def __call__(self, inputs: Float[ArrayLike, 'batch context features'], train: bool = False) -> Float[Array, ' batch']:
    inputs, zeros = jnp.asarray(inputs), nn.initializers.zeros
    states, _ = self.rnn(inputs, train=train)
    last = nn.Dropout(self.dropout_rate)(states[:, -1], deterministic=not train)
    correction = Dense(1, use_bias=False, kernel_init=zeros, name='correction')(last)
    return (self.mean + Dense(1, kernel_init=zeros, name='linear')(inputs[:, -1]) + correction)[:, 0]
