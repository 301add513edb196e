"""Errors of forecasts: of a point and of quantiles around it, and of a variance."""

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
  """Error of a point forecast plus, where there are `quantiles`, their mean pinball loss.

  Outputs are [..., 1 + quantiles], the point first; targets are [...]. Reports `mse` and `mae` of the point and, of the
  quantiles, `pinball` and `coverage`: the part of the targets from the first to the last quantile, which is the
  difference of the two where the forecast is calibrated.

  Args:
    quantiles: increasing shares between 0 and 1, of the targets that should lie below each.
    point_error: what the point minimises: its square gives the mean, its size the median.

  Raises ConfigError for other shares, and for a model that has not one output more than there are quantiles.
  """
  check_quantiles(quantiles)

  @expecting(lambda outputs: {'targets': Expected(outputs.shape[1:-1])})
  def objective(model, variables, batch, key, train):
    outputs, mutable = apply(model, variables, batch, key, train)
    if outputs.shape[-1] != 1 + len(quantiles):
      raise ConfigError(f'{len(quantiles)} quantiles and a point: the model has {outputs.shape[-1]} outputs a value')
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
  """Raises ConfigError unless the shares increase between 0 and 1; a forecast without them is none of an interval."""
  edges = (0, *quantiles, 1)
  if not all(low < high for low, high in zip(edges, edges[1:], strict=False)):
    raise ConfigError(f'quantiles={tuple(quantiles)}: must increase, and each be between 0 and 1')


def pinball(
  forecasts: Float[Array, '*shape quantiles'], targets: Float[Array, '*shape'], quantiles: Sequence[float]
) -> Float[Array, '*shape']:
  """Mean over `quantiles` of the loss that each of them minimises (Koenker and Bassett 1978).

  A share q pays q for each unit that the target lies above the forecast, and 1 - q for each unit below.
  """
  share = jnp.asarray(quantiles, forecasts.dtype).reshape((1,) * targets.ndim + (-1,))
  error = targets[..., None] - forecasts
  return jnp.maximum(share * error, (share - 1) * error).mean(-1)


def qlike() -> Objective:
  """Gaussian likelihood of a variance whose logarithm is forecast: log h + y / h (Patton 2011, equation 24).

  Outputs are log h [batch, ...], targets the squared returns y, an unbiased proxy of the variance; with it QLIKE ranks
  forecasts as the true variance would. Reports `qlike`, which is what is minimised.
  """

  @expecting(lambda outputs: {'targets': Expected(outputs.shape[1:], reshaped=True, at_least=0)})
  def objective(model, variables, batch, key, train):
    log_variance, mutable = apply(model, variables, batch, key, train)
    mask = batch.get('mask')
    targets = filled(batch['targets'].reshape(log_variance.shape), mask)
    value = mean(log_variance + targets * jnp.exp(-log_variance), mask)
    return value, Aux({'qlike': value}, mutable)

  return objective
