"""Shapes are annotated, and in the tests an array that does not fit is refused, even where it would broadcast."""

import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from jaxtyping import TypeCheckError

from research.data import augment
from research.metrics import mean
from research.models.cnn import ConvNet
from research.models.mlp import MLP
from research.ops.bias import bias_add

ROOT = Path(__file__).resolve().parents[1]
KEY = jax.random.key(0)


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


def test_fields_of_a_model_are_checked():
  with pytest.raises(TypeCheckError, match='hidden_sizes'):
    MLP(5, 2)


def test_nothing_is_checked_outside_the_tests():
  code = 'import sys; from research.models.mlp import MLP; MLP((5,), 2, residual=5); print("beartype" in sys.modules)'
  run = subprocess.run([sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True, check=True)
  assert run.stdout.strip() == 'False'
