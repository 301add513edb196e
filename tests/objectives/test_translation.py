"""Cross-entropy of tokens: the formula, and that nothing but a sentence's own tokens counts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from scipy.special import log_softmax

from research.errors import ConfigError
from research.objectives.translation import token_cross_entropy

KEY = jax.random.key(0)
RANDOM = np.random.default_rng(0)
LOGITS = RANDOM.normal(size=(3, 5, 7)).astype(np.float32)
TARGETS = RANDOM.integers(0, 7, (3, 5))
LENGTHS = np.array([5, 2, 4])


class Given(nn.Module):
  """Gives its inputs as logits."""

  def __call__(self, inputs, train=False):
    return inputs


def loss(logits=LOGITS, targets=TARGETS, smoothing=0.0, **more):
  batch = {'inputs': jnp.asarray(logits), 'targets': targets, 'target_lengths': LENGTHS, **more}
  value, aux = token_cross_entropy(smoothing)(Given(), {}, batch, KEY, False)
  return value, aux.metrics['token_accuracy']


@pytest.mark.parametrize('smoothing', [0.0, 0.1])
def test_is_the_formula_over_the_tokens_that_there_are(smoothing):
  value, accuracy = loss(smoothing=smoothing)
  mass = (1 - smoothing) * np.eye(7)[TARGETS] + smoothing / 7
  losses = -(mass * log_softmax(LOGITS.astype(np.float64), axis=-1)).sum(-1)
  real = np.arange(5) < LENGTHS[:, None]
  np.testing.assert_allclose(value.total, losses[real].sum(), rtol=1e-5)
  assert value.count == accuracy.count == LENGTHS.sum()
  assert accuracy.total == (LOGITS.argmax(-1) == TARGETS)[real].sum()


def test_padding_changes_neither_loss_nor_gradient():
  real = np.arange(5) < LENGTHS[:, None]
  other = np.where(real, TARGETS, -100), np.where(real[..., None], LOGITS, 9.0)
  for name in ('total', 'count'):
    assert getattr(loss(*reversed(other), smoothing=0.1)[0], name) == getattr(loss(smoothing=0.1)[0], name)
  slope = jax.grad(lambda logits: loss(logits, smoothing=0.1)[0].total)(jnp.asarray(LOGITS))
  assert not slope[~real].any() and slope[real].any(-1).all()


def test_examples_that_fill_a_batch_up_do_not_count():
  value, accuracy = loss(mask=np.array([1.0, 0.0, 1.0]))
  parts = [loss(mask=np.eye(3)[number])[0].total for number in (0, 2)]
  np.testing.assert_allclose(value.total, sum(parts), rtol=1e-6)
  assert value.count == accuracy.count == 9
  tokens = np.array([[1.0], [0.0], [1.0]]) * np.ones((3, 5))
  assert loss(mask=tokens) == (value, accuracy)


def test_a_smoothing_out_of_range():
  with pytest.raises(ConfigError, match='label_smoothing=1.0'):
    token_cross_entropy(1.0)
