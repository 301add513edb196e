"""Cross-entropies against formulas in numpy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from research.errors import ConfigError
from research.objectives.classification import binary_cross_entropy, softmax_cross_entropy

RNG = np.random.default_rng(0)
LOGITS = RNG.standard_normal((6, 4)).astype(np.float32)
TARGETS = np.array([0, 3, 1, 1, 2, 0], np.int32)
MASK = np.array([1, 1, 1, 1, 0, 0], np.float32)


class Table(nn.Module):
  """Gives its inputs as logits, plus a bias that can be learned."""

  @nn.compact
  def __call__(self, inputs, train=False):
    return inputs + self.param('bias', nn.initializers.zeros, inputs.shape)


def measure(objective, logits=LOGITS, targets=TARGETS, **batch):
  """(loss, metrics, gradient of the total by the logits) as numbers."""
  batch = {'inputs': jnp.asarray(logits), 'targets': jnp.asarray(targets), **batch}

  def loss(bias):
    value, aux = objective(Table(), {'params': {'bias': bias}}, batch, jax.random.key(0), False)
    return value.total, (value, aux)

  gradient, (value, aux) = jax.grad(loss, has_aux=True)(jnp.zeros(logits.shape))
  metrics = {name: float(mean.total / mean.count) for name, mean in aux.metrics.items()}
  return float(value.total / value.count), metrics, np.asarray(gradient)


def log_softmax(logits):
  logits = logits.astype(np.float64)
  return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


def entropies(smoothing=0.0):
  labels = np.eye(4)[TARGETS] * (1 - smoothing) + smoothing / 4
  return -(labels * log_softmax(LOGITS)).sum(-1)


@pytest.mark.parametrize('smoothing', [0.0, 0.1])
def test_softmax_cross_entropy(smoothing):
  loss, _, gradient = measure(softmax_cross_entropy(smoothing))
  np.testing.assert_allclose(loss, entropies(smoothing).mean(), rtol=1e-5)
  labels = np.eye(4)[TARGETS] * (1 - smoothing) + smoothing / 4
  np.testing.assert_allclose(gradient, np.exp(log_softmax(LOGITS)) - labels, atol=1e-5)


def test_class_weights_divide_by_the_weights_of_the_real_examples():
  weights = np.array([1.0, 2.0, 0.5, 4.0])
  loss, metrics, _ = measure(softmax_cross_entropy(0.1, tuple(weights)), mask=jnp.asarray(MASK))
  w = weights[TARGETS] * MASK
  np.testing.assert_allclose(loss, (w * entropies(0.1)).sum() / w.sum(), rtol=1e-5)
  assert metrics['accuracy'] == pytest.approx((LOGITS.argmax(-1) == TARGETS)[:4].mean())  # not weighted


def test_accuracy_and_top_k():
  _, metrics, _ = measure(softmax_cross_entropy(top_k=2))
  ranks = (-LOGITS).argsort(-1)
  assert set(metrics) == {'accuracy', 'top_2'}
  assert metrics['accuracy'] == pytest.approx((ranks[:, 0] == TARGETS).mean())
  assert metrics['top_2'] == pytest.approx((ranks[:, :2] == TARGETS[:, None]).any(-1).mean())
  assert metrics['top_2'] > metrics['accuracy']


def test_positions_of_sequences_are_as_many_examples():
  objective = softmax_cross_entropy(0.1, (1.0, 2.0, 0.5, 4.0), 2)
  loss, metrics, gradient = measure(objective)
  again, same, slopes = measure(objective, LOGITS.reshape(2, 3, 4), TARGETS.reshape(2, 3))
  assert (again, same) == (pytest.approx(loss), pytest.approx(metrics))
  np.testing.assert_allclose(slopes.reshape(6, 4), gradient, rtol=1e-5)


def test_a_logit_of_zero_is_class_zero():
  _, metrics, _ = measure(binary_cross_entropy(), np.zeros((4, 1), np.float32), np.array([0, 0, 0, 1]))
  assert metrics['accuracy'] == 0.75


def test_top_k_of_a_constant_model_is_chance():
  _, metrics, _ = measure(softmax_cross_entropy(top_k=2), np.zeros((4, 4), np.float32), np.arange(4))
  assert metrics['top_2'] == 0.5


@pytest.mark.parametrize('objective', [softmax_cross_entropy(0.1, (1.0, 2.0, 3.0, 4.0), 2), softmax_cross_entropy()])
def test_padded_examples_change_nothing(objective):
  other = np.where(MASK[:, None] > 0, LOGITS, 7 * RNG.standard_normal(LOGITS.shape)).astype(np.float32)
  targets = np.where(MASK > 0, TARGETS, 1)
  loss, metrics, gradient = measure(objective, mask=jnp.asarray(MASK))
  other_loss, other_metrics, other_gradient = measure(objective, other, targets, mask=jnp.asarray(MASK))
  assert (loss, metrics) == (other_loss, other_metrics)
  np.testing.assert_array_equal(gradient, other_gradient)
  np.testing.assert_array_equal(gradient[4:], 0)


@pytest.mark.parametrize(('smoothing', 'weights'), [(0.0, ()), (0.2, ()), (0.0, (1.0, 3.0))])
def test_binary_cross_entropy(smoothing, weights):
  logits, targets = LOGITS[:, :1], np.array([0, 1, 1, 0, 1, 0], np.int32)
  loss, metrics, _ = measure(binary_cross_entropy(smoothing, weights), logits, targets, mask=jnp.asarray(MASK))
  p = 1 / (1 + np.exp(-logits[:, 0].astype(np.float64)))
  t = targets * (1 - smoothing) + smoothing / 2
  losses = -(t * np.log(p) + (1 - t) * np.log(1 - p))
  w = MASK * (np.asarray(weights)[targets] if weights else 1)
  np.testing.assert_allclose(loss, (w * losses).sum() / w.sum(), rtol=1e-5)
  assert metrics['accuracy'] == pytest.approx(((p > 0.5) == targets)[:4].mean())


@pytest.mark.parametrize('objective', [softmax_cross_entropy, binary_cross_entropy])
def test_what_cannot_be_meant_is_refused(objective):
  for smoothing in (-0.1, 1.0, float('nan')):
    with pytest.raises(ConfigError, match='label_smoothing'):
      objective(smoothing)
  with pytest.raises(ConfigError, match='class_weights: has 3 entries; must be'):
    measure(objective(class_weights=(1.0, 2.0, 3.0)), LOGITS[:, :2], TARGETS[:2, None] * np.ones(2, int))

  for weight in (-1.0, float('nan'), float('inf')):
    with pytest.raises(ConfigError, match=f'class_weights={weight}: must be at least 0 and finite'):
      objective(class_weights=(1.0, weight))


def test_more_largest_logits_than_classes_are_refused():
  measure(softmax_cross_entropy(top_k=4))
  with pytest.raises(ConfigError, match='top_k=5: must be a whole number from 1 to 4'):
    measure(softmax_cross_entropy(top_k=5))
  with pytest.raises(ConfigError, match='top_k=-1'):
    softmax_cross_entropy(top_k=-1)


@pytest.mark.parametrize('smoothing', [0.0, 0.1])
def test_targets_are_not_broadcast(smoothing):
  with pytest.raises(ConfigError, match=r'targets: have shape \(6, 1\); must be \(6,\)'):
    measure(softmax_cross_entropy(smoothing), LOGITS, TARGETS[:, None])
  with pytest.raises(ConfigError, match=r'targets: have shape \(2,\); must be \(2, 3\) for logits \(2, 3, 4\)'):
    measure(softmax_cross_entropy(smoothing), LOGITS.reshape(2, 3, 4), TARGETS[:2])


@pytest.mark.parametrize('smoothing', [0.0, 0.1])
@pytest.mark.parametrize('weights', [(), (1.0, 2.0, 3.0, 4.0)])
@pytest.mark.parametrize('wrong', [-100, -1, 4])
def test_a_label_that_is_no_class_is_never_learned(wrong, weights, smoothing):
  objective = softmax_cross_entropy(smoothing, weights)
  targets = np.where(MASK > 0, TARGETS, wrong)
  assert np.isnan(measure(objective, targets=targets)[0])
  masked, expected = (measure(objective, targets=labels, mask=jnp.asarray(MASK)) for labels in (targets, TARGETS))
  jax.tree.map(np.testing.assert_array_equal, masked, expected)
