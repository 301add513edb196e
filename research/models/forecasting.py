"""Forecasts of many variables at once, by models that every variable shares."""

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
  """Where a variable is within one window, and how far it moves: [batch, variables, 1]."""

  middle: Float[Array, 'batch variables 1']
  spread: Float[Array, 'batch variables 1']


class PatchRNN(nn.Module):
  """A recurrent network over patches of the past, added to a linear forecast.

  Every variable is a series of its own to one shared network (channel independence), and a patch of the past is one
  step of it: Nie et al. (2023), 'A Time Series is Worth 64 Words', arXiv:2211.14730. A window is forecast relative to
  its own level, so that a series may drift: Kim et al. (2022), 'Reversible Instance Normalization', without its
  parameters. The linear forecast begins at zero, which is the level itself.

  Raises ConfigError where patches do not make up the context, or a dropout is not below 1.
  """

  rnn: RNN
  horizon: int
  num_outputs: int = 1  # numbers for each step and variable: a point, and quantiles
  patch_size: int = 24  # steps
  dropout_rate: float = 0.0  # part of the units of a patch, and of those that the forecast is read from

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
  """Two linear maps, of the moving average of the past and of what is left: Zeng et al. (2023), arXiv:2205.13504.

  The two are shared by the variables, as in the paper's tables. Raises ConfigError for a moving average of an even
  number of steps, or of none.
  """

  horizon: int
  num_outputs: int = 1
  window: int = 25  # steps of the moving average: odd

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
  """The past of each variable, from its level and in units of its spread."""
  return (jnp.swapaxes(jnp.asarray(inputs), 1, 2) - level.middle) / level.spread


def absolute(values: Float[Array, 'batch variables _'], level: Level, num_outputs: int) -> Forecast:
  """A forecast in the variables' own units, of one that is relative to their level."""
  return as_forecast(values * level.spread + level.middle, num_outputs)


def as_forecast(values: Float[Array, 'batch variables _'], num_outputs: int) -> Forecast:
  """The numbers of each variable, `num_outputs` of them for each step, with the steps in front."""
  return jnp.swapaxes(values.reshape(*values.shape[:2], -1, num_outputs), 1, 2)


def moving_average(
  past: Float[Array, 'batch variables context'], steps: int
) -> Float[Array, 'batch variables context']:
  """Mean of the `steps` around each step; beyond an end the value at that end."""
  check_odd('window', steps)
  padded = jnp.pad(past, ((0, 0), (0, 0), (steps // 2, steps // 2)), mode='edge')
  return nn.avg_pool(jnp.swapaxes(padded, 1, 2), (steps,)).swapaxes(1, 2)


def check_odd(name: str, steps: int) -> None:
  """Raises ConfigError unless a number of steps has a middle."""
  if steps < 1 or steps % 2 == 0:
    raise ConfigError(f'{name}={steps}: must be an odd number of steps')


class LogVariance(nn.Module):
  """Logarithm of the next step's variance: linear in what is known of the last step, and corrected by a network.

  The linear part alone is the regression of Corsi (2009) where the features are mean squares over several spans. Both
  parts begin at zero, so that the first forecast is `mean`.
  """

  rnn: RNN
  mean: float  # logarithm of the mean variance
  dropout_rate: float = 0.0  # part of the network's units

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
