"""Errors of forecasts against formulas in numpy, scikit-learn's pinball loss and scipy's normal distribution."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn
from scipy.stats import norm
from sklearn.metrics import mean_pinball_loss

from research.errors import ConfigError
from research.objectives.forecasting import forecast_error, pinball, qlike

RANDOM = np.random.default_rng(0)
QUANTILES = (0.1, 0.5, 0.8)
OUTPUTS = RANDOM.normal(size=(5, 3, 2, 4)).astype(np.float32)  # examples, horizon, variables, point and quantiles
OUTPUTS[..., 1:] = np.sort(OUTPUTS[..., 1:])
TARGETS = RANDOM.normal(size=(5, 3, 2)).astype(np.float32)
MASK = np.array([1, 1, 1, 1, 0], np.float32)


class Shifted(nn.Module):
  """Gives its inputs plus a parameter of their shape."""

  @nn.compact
  def __call__(self, inputs, train=False):
    return inputs + self.param('shift', nn.initializers.zeros, inputs.shape)


def measure(objective, outputs, targets, mask=MASK):
  """(loss, metrics, gradient of the total by the outputs) as numbers."""
  batch = {'inputs': jnp.asarray(outputs), 'targets': jnp.asarray(targets), 'mask': jnp.asarray(mask)}

  def loss(shift):
    value, aux = objective(Shifted(), {'params': {'shift': shift}}, batch, jax.random.key(0), False)
    return value.total, (value, aux)

  gradient, (value, aux) = jax.grad(loss, has_aux=True)(jnp.zeros(outputs.shape))
  metrics = {name: float(mean.total / mean.count) for name, mean in aux.metrics.items()}
  return float(value.total / value.count), metrics, np.asarray(gradient)


def test_loss_is_that_of_the_point_and_of_the_quantiles_over_the_real_examples():
  loss, metrics, _ = measure(forecast_error(QUANTILES), OUTPUTS, TARGETS)
  outputs, targets = OUTPUTS[:4].reshape(-1, 4).astype(np.float64), TARGETS[:4].ravel().astype(np.float64)
  error = outputs[:, 0] - targets
  losses = [mean_pinball_loss(targets, outputs[:, 1 + n], alpha=share) for n, share in enumerate(QUANTILES)]
  inside = (outputs[:, 1] <= targets) & (targets <= outputs[:, 3])
  expected = {'mse': (error**2).mean(), 'mae': np.abs(error).mean(), 'pinball': np.mean(losses)}
  assert metrics == pytest.approx({**expected, 'coverage': inside.mean()}, rel=1e-5)
  assert loss == pytest.approx(expected['mse'] + expected['pinball'], rel=1e-5)


def test_targets_at_the_ends_of_the_interval_are_covered():
  outputs = np.broadcast_to(np.array([0.0, -1.0, 1.0], np.float32), (4, 3))
  targets = np.array([-1.0, 1.0, -1.5, 1.5], np.float32)
  assert measure(forecast_error((0.1, 0.9)), outputs, targets, np.ones(4))[1]['coverage'] == 0.5


def test_padded_examples_change_neither_loss_nor_gradient():
  other = OUTPUTS.copy()
  other[4] = 1e3
  (loss, metrics, gradient), (again, same, changed) = (
    measure(forecast_error(QUANTILES), outputs, TARGETS) for outputs in (OUTPUTS, other)
  )
  assert (loss, metrics) == (again, same)
  np.testing.assert_array_equal(gradient, changed)
  assert (gradient[4] == 0).all() and (gradient[:4] != 0).any()


@pytest.mark.parametrize(('objective', 'outputs'), [(forecast_error(QUANTILES), OUTPUTS), (qlike(), OUTPUTS[..., 0])])
def test_a_missing_target_that_does_not_count_spoils_nothing(objective, outputs):
  missing = TARGETS.copy()
  missing[4] = np.nan
  found, expected = (measure(objective, outputs, targets) for targets in (missing, TARGETS))
  jax.tree.map(np.testing.assert_array_equal, found, expected)


def test_another_error_of_the_point_and_no_quantiles():
  loss, metrics, _ = measure(forecast_error(point_error=lambda a, b: jnp.abs(a - b)), OUTPUTS[..., :1], TARGETS)
  assert loss == metrics['mae'] and set(metrics) == {'mse', 'mae'}


@pytest.mark.parametrize('quantiles', [(), (0.5,), (0.1, 0.9)])
def test_a_model_of_other_outputs_is_refused(quantiles):
  with pytest.raises(ConfigError, match=f'{len(quantiles)} quantiles and a point: the model has 4 outputs per value'):
    measure(forecast_error(quantiles), OUTPUTS, TARGETS)


def test_pinball_is_least_at_the_quantiles_of_the_targets():
  """Of a normal sample the losses find the quantiles that scipy's formula gives, and the interval covers its share."""
  targets = jnp.asarray(norm.ppf((np.arange(2_000) + 0.5) / 2_000), jnp.float32)
  rule = optax.adam(optax.cosine_decay_schedule(0.05, 400))

  def total(quantiles):
    return pinball(jnp.broadcast_to(quantiles[None], (len(targets), 2)), targets, (0.1, 0.9)).mean()

  def step(carry, _):
    updates, state = rule.update(jax.grad(total)(carry[0]), carry[1])
    return (carry[0] + updates, state), None

  (quantiles, _), _ = jax.lax.scan(step, (jnp.zeros(2), rule.init(jnp.zeros(2))), length=400)
  np.testing.assert_allclose(quantiles, norm.ppf([0.1, 0.9]), atol=0.01)
  outputs = np.broadcast_to(np.array([0.0, *np.asarray(quantiles)], np.float32), (2_000, 3))
  _, metrics, _ = measure(forecast_error((0.1, 0.9)), outputs, targets, np.ones(2_000, np.float32))
  assert metrics['coverage'] == pytest.approx(0.8, abs=0.005)


@pytest.mark.parametrize('quantiles', [(0.0,), (0.5, 0.5), (0.9, 0.1), (1.0,), (float('nan'),)])
def test_shares_that_are_no_quantiles_are_refused(quantiles):
  with pytest.raises(ConfigError, match='quantiles='):
    forecast_error(quantiles)


def test_qlike_is_the_normal_likelihood_and_least_at_the_true_variance():
  squares = np.square(RANDOM.normal(0, 1.5, (6, 1, 1))).astype(np.float32)
  log_variance, mask = RANDOM.normal(size=6).astype(np.float32), np.array([1, 1, 1, 1, 1, 0], np.float32)
  loss, metrics, gradient = measure(qlike(), log_variance, squares, mask)
  likelihood = norm.logpdf(np.sqrt(squares.ravel()), scale=np.exp(log_variance / 2))[:5]
  assert loss == metrics['qlike'] == pytest.approx((-2 * likelihood - np.log(2 * np.pi)).mean(), rel=1e-5)
  _, _, at_truth = measure(qlike(), np.log(squares.ravel()), squares, mask)
  np.testing.assert_allclose(at_truth, 0, atol=1e-5)
  assert np.abs(gradient[:5]).min() > 1e-3 and gradient[5] == 0


def test_there_is_a_target_for_each_point():
  assert forecast_error(QUANTILES).expects(OUTPUTS)['targets'].shape == TARGETS.shape[1:]


def test_a_variance_of_less_than_0_is_not_expected():
  expected = qlike().expects(jax.ShapeDtypeStruct((6, 1), float))['targets']
  assert (expected.shape, expected.at_least, expected.at_most) == ((1,), 0, np.inf)
