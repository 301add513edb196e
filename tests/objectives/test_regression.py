"""Errors of predictions against formulas in numpy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from research.errors import ConfigError
from research.objectives.base import apply
from research.objectives.regression import huber, mean_absolute_error, mean_squared_error

PREDICTIONS = np.array([[0.0], [1.5], [-2.0], [4.0], [9.0]], np.float32)
TARGETS = np.array([0.5, 1.0, 2.0, 0.25, 1.0], np.float32)
MASK = np.array([1, 1, 1, 1, 0], np.float32)
ERRORS = (PREDICTIONS[:, 0] - TARGETS)[:4]


class Given(nn.Module):
  def __call__(self, inputs, train=False):
    return inputs


def measure(objective, targets=TARGETS, predictions=PREDICTIONS):
  batch = {'inputs': jnp.asarray(predictions), 'targets': jnp.asarray(targets), 'mask': jnp.asarray(MASK)}
  value, aux = objective(Given(), {}, batch, jax.random.key(0), False)
  return float(value.total / value.count), {n: float(m.total / m.count) for n, m in aux.metrics.items()}


def huber_formula(error, delta):
  size = np.abs(error)
  return np.where(size <= delta, error**2 / 2, delta * (size - delta / 2))


@pytest.mark.parametrize(
  ('objective', 'expected'),
  [
    (mean_squared_error(), ERRORS**2),
    (mean_absolute_error(), np.abs(ERRORS)),
    (huber(), huber_formula(ERRORS, 1.0)),
    (huber(2.5), huber_formula(ERRORS, 2.5)),
  ],
)
def test_errors_over_the_real_examples(objective, expected):
  loss, metrics = measure(objective)
  assert loss == pytest.approx(expected.mean())
  assert metrics['mean_squared_error'] == pytest.approx((ERRORS**2).mean())
  assert metrics['mean_absolute_error'] == pytest.approx(np.abs(ERRORS).mean())


def test_targets_are_matched_to_predictions_not_broadcast():
  several = np.stack([TARGETS, -TARGETS], 1)
  predictions = np.zeros_like(several)
  loss, _ = measure(mean_squared_error(), several, predictions)
  assert loss == pytest.approx((TARGETS[:4] ** 2).mean())


@pytest.mark.parametrize('delta', [0.0, -1.0, np.nan, np.inf])
def test_a_delta_that_is_no_size_is_refused(delta):
  with pytest.raises(ConfigError, match=f'delta={delta}: must be more than 0 and finite'):
    huber(delta)


class Noisy(nn.Module):
  """Has dropout and batch statistics."""

  @nn.compact
  def __call__(self, inputs, train=False):
    x = nn.BatchNorm(not train)(inputs)
    return nn.Dropout(0.5)(x, deterministic=not train)


def test_apply_changes_statistics_and_draws_noise_in_training_alone():
  batch = {'inputs': 3 + jax.random.normal(jax.random.key(0), (64, 2))}
  variables = Noisy().init(jax.random.key(0), batch['inputs'])
  first, mutable = apply(Noisy(), variables, batch, jax.random.key(1), True)
  second, _ = apply(Noisy(), variables, batch, jax.random.key(2), True)
  assert (np.asarray(first) == 0).any()
  assert (np.asarray(first) != np.asarray(second)).any()
  assert (mutable['batch_stats']['BatchNorm_0']['mean'] > 0).all()
  outputs, mutable = apply(Noisy(), variables, batch, jax.random.key(1), False)
  np.testing.assert_allclose(outputs, batch['inputs'], rtol=1e-4)
  assert mutable == {}


@pytest.mark.parametrize('objective', [mean_squared_error(), mean_absolute_error(), huber()])
def test_a_missing_target_that_does_not_count_spoils_no_gradient(objective):
  def total(predictions):
    batch = {'inputs': predictions, 'targets': jnp.array([1.0, jnp.nan]), 'mask': jnp.array([1.0, 0.0])}
    return objective(Given(), {}, batch, jax.random.key(0), False)[0].total

  gradient = np.asarray(jax.grad(total)(jnp.zeros((2, 1))))
  assert gradient[0] != 0 and gradient[1] == 0


def test_targets_are_expected_in_the_shape_of_the_predictions():
  outputs = jax.ShapeDtypeStruct((6, 3, 2), np.float32)
  assert mean_squared_error().expects(outputs)['targets'].shape == (3, 2)
