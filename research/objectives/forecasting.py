"""Losses of forecasts: points, quantiles and variances."""

from collections.abc import Callable, Sequence

import jax.numpy as jnp
import optax
from jax import Array
from jaxtyping import Float

from research.errors import ConfigError
from research.expected import Expected
from research.metrics import filled, mean
from research.objectives.base import apply, expecting
from research.types import Aux, Objective


def forecast_error(
  quantiles: Sequence[float] = (), point_error: Callable[[Array, Array], Array] = optax.squared_error
) -> Objective:
  """Error of a point forecast plus the mean pinball loss of `quantiles`, if any.

  Outputs are [..., 1 + quantiles], the point first; targets are [...]. Reports `mse` and `mae` of the point and, for
  the quantiles, `pinball` and `coverage`: the fraction of targets between the first and last quantile, which equals
  their difference for a calibrated forecast.

  Args:
    quantiles: increasing probabilities between 0 and 1.
    point_error: the loss of the point: squared error gives the mean, absolute error the median.

  Raises ConfigError for other probabilities, and unless the model has one more output than there are quantiles.
  """
  check_quantiles(quantiles)

  @expecting(lambda outputs: {'targets': Expected(outputs.shape[1:-1])})
  def objective(model, variables, batch, key, train):
    outputs, mutable = apply(model, variables, batch, key, train)
    if outputs.shape[-1] != 1 + len(quantiles):
      raise ConfigError(f'{len(quantiles)} quantiles and a point: the model has {outputs.shape[-1]} outputs per value')
    mask, point = batch.get('mask'), outputs[..., 0]
    targets = filled(batch['targets'], mask)
    errors = point_error(point, targets)
    metrics = {
      'mse': mean(optax.squared_error(point, targets), mask),
      'mae': mean(jnp.abs(point - targets), mask),
    }
    if quantiles:
      losses = pinball(outputs[..., 1:], targets, quantiles)
      inside = (outputs[..., 1] <= targets) & (targets <= outputs[..., -1])
      metrics |= {'pinball': mean(losses, mask), 'coverage': mean(inside.astype(losses.dtype), mask)}
      errors = errors + losses
    return mean(errors, mask), Aux(metrics, mutable)

  return objective


def check_quantiles(quantiles: Sequence[float]) -> None:
  """Raises ConfigError unless the probabilities increase between 0 and 1; no quantiles means no interval."""
  edges = (0, *quantiles, 1)
  if not all(low < high for low, high in zip(edges, edges[1:], strict=False)):
    raise ConfigError(f'quantiles={tuple(quantiles)}: must increase, and each be between 0 and 1')


def pinball(
  forecasts: Float[Array, '*shape quantiles'], targets: Float[Array, '*shape'], quantiles: Sequence[float]
) -> Float[Array, '*shape']:
  """Mean pinball loss over `quantiles` (Koenker and Bassett 1978).

  Quantile q costs q per unit that the target is above the forecast, and 1 - q per unit below.
  """
  share = jnp.asarray(quantiles, forecasts.dtype).reshape((1,) * targets.ndim + (-1,))
  error = targets[..., None] - forecasts
  return jnp.maximum(share * error, (share - 1) * error).mean(-1)


def qlike() -> Objective:
  """Gaussian likelihood of a log-variance forecast: log h + y / h (Patton 2011, equation 24).

  Outputs are log h [batch, ...], targets the squared returns y, an unbiased proxy of the variance; with it QLIKE ranks
  forecasts as the true variance would. Reports `qlike`, the loss itself.
  """

  @expecting(lambda outputs: {'targets': Expected(outputs.shape[1:], reshaped=True, at_least=0)})
  def objective(model, variables, batch, key, train):
    log_variance, mutable = apply(model, variables, batch, key, train)
    mask = batch.get('mask')
    targets = filled(batch['targets'].reshape(log_variance.shape), mask)
    value = mean(log_variance + targets * jnp.exp(-log_variance), mask)
    return value, Aux({'qlike': value}, mutable)

  return objective
