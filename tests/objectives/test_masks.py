"""Rows that fill a batch up change neither loss, metrics nor gradient: as if they were not there."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from research.objectives.classification import softmax_cross_entropy
from research.objectives.ctc import ctc
from research.objectives.forecasting import forecast_error, qlike
from research.objectives.language import next_token
from research.objectives.regression import mean_squared_error
from research.objectives.translation import token_cross_entropy

ROWS, LENGTH, CLASSES = 6, 5, 4
REAL = np.array([1, 0, 1, 1, 0, 1], bool)
RANDOM = np.random.default_rng(0)
LENGTHS = np.array([5, 4, 3, 5, 5, 4], np.int32)
TARGET_LENGTHS = np.array([1, 2, 1, 3, 0, 2], np.int32)


def labels(*shape: int) -> np.ndarray:
  return RANDOM.integers(1, CLASSES, (ROWS, *shape)).astype(np.int32)


def numbers(*shape: int) -> np.ndarray:
  return RANDOM.normal(size=(ROWS, *shape)).astype(np.float32)


CTC = {'targets': labels(3), 'lengths': LENGTHS, 'target_lengths': TARGET_LENGTHS}
CASES = {  # an objective, outputs of a model, and what else is in the batch
  'softmax_cross_entropy': (softmax_cross_entropy(), numbers(CLASSES), {'targets': labels()}),
  'mean_squared_error': (mean_squared_error(), numbers(2), {'targets': numbers(2)}),
  'next_token': (next_token(np.arange(1.0, 1 + CLASSES)), numbers(LENGTH, CLASSES), {'targets': labels(LENGTH)}),
  'weighted next_token': (
    next_token(),
    numbers(LENGTH, CLASSES),
    {'targets': labels(LENGTH), 'weights': np.abs(numbers(LENGTH))},
  ),
  'ctc': (ctc(), numbers(LENGTH, CLASSES), CTC),
  'token_cross_entropy': (
    token_cross_entropy(0.1),
    numbers(LENGTH, CLASSES),
    {'targets': labels(LENGTH), 'target_lengths': LENGTHS},
  ),
  'forecast_error': (forecast_error((0.1, 0.9)), numbers(LENGTH, 2, 3), {'targets': numbers(LENGTH, 2)}),
  'qlike': (qlike(), numbers(), {'targets': np.square(numbers(1, 1))}),
}


class Shifted(nn.Module):
  """Gives its inputs plus a parameter of their shape."""

  @nn.compact
  def __call__(self, inputs, train=False):
    return inputs + self.param('shift', nn.initializers.zeros, inputs.shape)


def measure(objective, batch):
  """Loss, metrics, and the gradient of the loss's total by the outputs."""

  @partial(jax.grad, has_aux=True)
  def slope(shift, batch):
    value, aux = objective(Shifted(), {'params': {'shift': shift}}, batch, jax.random.key(0), True)
    return value.total, (value, aux.metrics)

  gradient, (value, metrics) = jax.jit(slope)(jnp.zeros(batch['inputs'].shape), batch)
  return value, metrics, gradient


@pytest.mark.parametrize('name', CASES)
def test_rows_that_fill_a_batch_up_are_as_if_not_there(name):
  objective, outputs, rest = CASES[name]
  batch = {'inputs': outputs, **rest}
  value, metrics, gradient = measure(objective, {key: array[REAL] for key, array in batch.items()})
  far = {**batch, 'inputs': np.where(np.expand_dims(REAL, tuple(range(1, outputs.ndim))), outputs, 20 + 10 * outputs)}
  found, same, slopes = measure(objective, {**far, 'mask': REAL.astype(np.float32)})
  jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-5), (found, same), (value, metrics))
  np.testing.assert_allclose(slopes[REAL], gradient, rtol=1e-5, atol=1e-6)
  assert not np.asarray(slopes)[~REAL].any() and np.asarray(gradient).any()
