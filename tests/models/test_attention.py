"""Self-attention where a position may look at nothing."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research.errors import ConfigError
from research.models.attention import SelfAttention

INPUTS = jax.random.normal(jax.random.key(1), (2, 5, 8))
MODEL = SelfAttention(2)


@pytest.fixture(scope='module')
def variables():
  """Variables whose biases are not 0."""
  return jax.tree.map(lambda leaf: leaf + 0.3, MODEL.init(jax.random.key(0), INPUTS))


def test_a_position_that_may_look_at_nothing_gives_zero_and_gets_no_gradient(variables):
  mask = np.ones((2, 1, 5, 5), bool)
  mask[0, :, 2] = mask[1] = False

  def total(variables, inputs):
    outputs = MODEL.apply(variables, inputs, jnp.asarray(mask))
    return jnp.sum(outputs[1]) + jnp.sum(outputs[0, 2]), outputs

  gradients, outputs = jax.grad(total, (0, 1), has_aux=True)(variables, INPUTS)
  assert not outputs[1].any() and not outputs[0, 2].any()
  assert all(not leaf.any() for leaf in jax.tree.leaves(gradients))
  others = np.array([0, 1, 3, 4])
  np.testing.assert_allclose(outputs[0, others], MODEL.apply(variables, INPUTS)[0, others], atol=1e-5)


def test_a_head_that_may_look_at_nothing_adds_nothing(variables):
  mask = np.ones((2, 2, 5, 5), bool)
  mask[:, 1] = False
  alone = jax.tree.map_with_path(
    lambda path, leaf: leaf.at[1].set(0) if 'out' in str(path) and leaf.ndim == 3 else leaf, variables
  )
  got, expected = MODEL.apply(variables, INPUTS, jnp.asarray(mask)), MODEL.apply(alone, INPUTS)
  np.testing.assert_allclose(got, expected, atol=1e-5)


def test_dropout_is_of_training_alone(variables):
  plain, dropping = MODEL.apply(variables, INPUTS), SelfAttention(2, dropout_rate=0.5)
  np.testing.assert_array_equal(dropping.apply(variables, INPUTS), plain)
  trained = dropping.apply(variables, INPUTS, train=True, rngs={'dropout': jax.random.key(2)})
  assert np.abs(trained - plain).max() > 0.01


def test_a_dropout_of_all_weights_is_refused():
  with pytest.raises(ConfigError, match='dropout_rate=1.0: must be at least 0 and less than 1'):
    SelfAttention(2, dropout_rate=1.0).init(jax.random.key(0), INPUTS)


@pytest.mark.parametrize(
  ('heads', 'message'),
  [(0, 'num_heads=0: must be a whole number of at least 1'), (3, 'num_heads=3: must divide the 8 features')],
)
def test_heads_that_do_not_divide_the_features_are_refused(heads, message):
  with pytest.raises(ConfigError, match=message):
    jax.eval_shape(SelfAttention(heads).init, jax.random.key(0), INPUTS)
