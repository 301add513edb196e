"""Shapes are annotated, and in the tests an array that does not fit is refused, even where it would broadcast."""

import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from flax import linen as nn
from jaxtyping import TypeCheckError

from research.data import augment
from research.metrics import mean
from research.models.cnn import ConvNet
from research.models.mlp import MLP
from research.objectives.classification import softmax_cross_entropy
from research.ops.bias import bias_add

ROOT = Path(__file__).resolve().parents[1]
KEY = jax.random.key(0)


class Given(nn.Module):
  """Gives its inputs as logits."""

  def __call__(self, inputs, train=False):
    return inputs


def entropy(logits, targets):
  return softmax_cross_entropy()(Given(), {}, {'inputs': logits, 'targets': targets}, KEY, False)


def flipped(images):
  return augment.flip()({'inputs': images, 'index': jnp.arange(2)}, KEY)


@pytest.mark.parametrize(
  ('argument', 'function', 'right', 'wrong'),
  [
    ('mask', mean, ((4, 2), (4,)), ((4, 2), (1,))),
    ('bias', bias_add, ((4, 2), (2,)), ((4, 2), (1,))),
    ('inputs', lambda x: ConvNet((2,), 3).init(KEY, x), ((2, 4, 4, 1),), ((4, 4, 1),)),
    ('images', flipped, ((2, 4, 4, 1),), ((2, 4, 4, 1, 1),)),
  ],
)
def test_a_wrong_shape_is_refused(argument, function, right, wrong):
  jax.eval_shape(function, *(jax.ShapeDtypeStruct(shape, jnp.float32) for shape in right))
  with pytest.raises(TypeCheckError, match=rf'(?s)parameters of research.*\b{argument}\b'):
    jax.eval_shape(function, *(jax.ShapeDtypeStruct(shape, jnp.float32) for shape in wrong))


def test_targets_that_would_broadcast_are_refused():
  logits = jnp.zeros((4, 3))
  entropy(logits, jnp.zeros(4, jnp.int32))
  with pytest.raises(TypeCheckError, match='targets'):
    entropy(logits, jnp.zeros(1, jnp.int32))


def test_fields_of_a_model_are_checked():
  with pytest.raises(TypeCheckError, match='widths'):
    MLP(5, 2)


def test_nothing_is_checked_outside_the_tests():
  code = 'import sys; from research.models.mlp import MLP; MLP(5, 2); print("beartype" in sys.modules)'
  run = subprocess.run([sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True, check=True)
  assert run.stdout.strip() == 'False'
