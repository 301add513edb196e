"""Next-token loss against the formula: weights, masks, and bits by character."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import log_softmax

from research.errors import ConfigError
from research.objectives.language import next_token

RANDOM = np.random.default_rng(0)
LOGITS = RANDOM.normal(size=(3, 5, 4)).astype(np.float32)
TARGETS = RANDOM.integers(0, 4, (3, 5))
WEIGHTS = RANDOM.choice([0.0, 0.5, 1.0, 2.0], (3, 5)).astype(np.float32)
CHARACTERS = np.array([1, 3, 0, 2], np.float32)
NATS = -np.take_along_axis(log_softmax(LOGITS.astype(float), -1), TARGETS[..., None], -1)[..., 0]


class Table:
  """A model whose logits are its parameters."""

  def apply(self, variables, inputs, train, **options):
    return (variables['params'], {}) if 'mutable' in options else variables['params']


def measure(batch, logits=LOGITS, train=False):
  variables, key = {'params': jnp.asarray(logits)}, jax.random.key(0)
  batch = {'inputs': jnp.asarray(TARGETS), 'targets': jnp.asarray(TARGETS), **batch}
  return next_token(CHARACTERS)(Table(), variables, batch, key, train)


def divided(mean) -> float:
  return float(mean.total / mean.count)


@pytest.mark.parametrize('train', [True, False])
@pytest.mark.parametrize(
  'batch', [{}, {'weights': WEIGHTS}, {'mask': np.array([1.0, 0, 1])}, {'mask': 1.0 * (TARGETS > 0)}]
)
def test_loss_and_bits_are_those_of_the_formula(batch, train):
  weights = batch.get('weights', np.ones((3, 5))) * batch.get('mask', np.ones(3)).reshape(3, -1)
  loss, aux = measure(batch, train=train)
  np.testing.assert_allclose(divided(loss), np.average(NATS, weights=weights), rtol=1e-6)
  assert float(loss.count) == weights.sum()
  bits = (NATS * weights).sum() / np.log(2)
  found = {name: divided(mean) for name, mean in aux.metrics.items()}
  np.testing.assert_allclose(found['bits_per_token'], bits / weights.sum(), rtol=1e-6)
  np.testing.assert_allclose(found['bits_per_character'], bits / (CHARACTERS[TARGETS] * weights).sum(), rtol=1e-6)
  right = LOGITS.argmax(-1) == TARGETS
  np.testing.assert_allclose(found['accuracy'], np.average(right, weights=weights), rtol=1e-6)


def test_what_does_not_count_changes_neither_loss_nor_gradient():
  weights = np.array([[1, 1, 1, 0, 0]] * 3, np.float32)
  batch = {'weights': weights, 'mask': np.array([1.0, 1, 0])}
  other = LOGITS.copy()
  other[:, 3:], other[2] = np.nan, np.inf

  def loss(logits):
    mean, aux = measure(batch, logits)
    return mean.total, (mean, aux.metrics)

  gradient, (mean, metrics) = jax.grad(loss, has_aux=True)(jnp.asarray(LOGITS))
  assert not np.asarray(gradient)[weights * batch['mask'][:, None] == 0].any()
  assert np.asarray(gradient)[:2, :3].all()
  jax.tree.map(np.testing.assert_array_equal, (mean, metrics), loss(jnp.asarray(other))[1])


def test_a_weight_for_each_target_is_expected():
  weights = next_token().expects(LOGITS)['weights']
  assert weights.shape == WEIGHTS.shape[1:] and str(weights).startswith('numbers of at least 0: ')


def test_characters_of_another_vocabulary_are_refused():
  batch = {'inputs': jnp.asarray(TARGETS), 'targets': jnp.asarray(TARGETS)}
  objective = next_token(np.ones(LOGITS.shape[-1] - 1))
  with pytest.raises(ConfigError, match=f'characters: has {LOGITS.shape[-1] - 1} entries; must be {LOGITS.shape[-1]},'):
    objective(Table(), {'params': jnp.asarray(LOGITS)}, batch, jax.random.key(0), False)


def test_without_characters_there_are_no_bits_per_character():
  batch = {'inputs': jnp.asarray(TARGETS), 'targets': jnp.asarray(TARGETS)}
  aux = next_token()(Table(), {'params': jnp.asarray(LOGITS)}, batch, jax.random.key(0), False)[1]
  assert sorted(aux.metrics) == ['accuracy', 'bits_per_token']
