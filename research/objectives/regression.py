"""Losses of real-valued predictions."""

from collections.abc import Callable

import jax.numpy as jnp
import optax
from jax import Array

from research.errors import check_range
from research.expected import Expected
from research.metrics import filled, mean
from research.objectives.base import apply, expecting
from research.types import Aux, Objective


def mean_squared_error() -> Objective:
  """Squared error of predictions [batch, outputs]; targets have the same shape, or [batch] for one output."""
  return _objective(optax.squared_error)


def mean_absolute_error() -> Objective:
  """Absolute error; shapes as for `mean_squared_error`."""
  return _objective(lambda predictions, targets: jnp.abs(predictions - targets))


def huber(delta: float = 1.0) -> Objective:
  """Half the squared error up to `delta`, linear beyond it (Huber 1964); shapes as for `mean_squared_error`.

  Raises ConfigError for a `delta` that is not above 0.
  """
  check_range('delta', delta, above=0)
  return _objective(lambda predictions, targets: optax.huber_loss(predictions, targets, delta=delta))


def _objective(error: Callable[[Array, Array], Array]) -> Objective:
  """Minimizes `error`; always reports mean squared and mean absolute error."""

  @expecting(lambda predictions: {'targets': Expected(predictions.shape[1:], reshaped=True)})
  def objective(model, variables, batch, key, train):
    predictions, mutable = apply(model, variables, batch, key, train)
    mask = batch.get('mask')
    targets = filled(batch['targets'].reshape(predictions.shape), mask)
    metrics = {
      'mean_squared_error': mean(optax.squared_error(predictions, targets), mask),
      'mean_absolute_error': mean(jnp.abs(predictions - targets), mask),
    }
    return mean(error(predictions, targets), mask), Aux(metrics, mutable)

  return objective
