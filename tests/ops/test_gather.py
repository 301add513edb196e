"""Entries by index, and NaN where there is none, as in Linen."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from research.ops.gather import is_largest, pick, take
from research.ops.layers import Embed

TABLE = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
INDEX = np.array([[3, 0], [4, 100], [-1, 2]])
THERE = (INDEX >= 0) & (INDEX < 4)


@pytest.mark.parametrize('dtype', [np.int32, np.int8])
def test_rows_and_their_gradients(dtype):
  def total(table):
    rows = take(table, INDEX.astype(dtype))
    return jnp.where(THERE[..., None], rows, 0).sum(), rows

  gradient, rows = jax.jit(jax.grad(total, has_aux=True))(TABLE)
  np.testing.assert_array_equal(rows, np.where(THERE[..., None], TABLE[INDEX % 4], np.nan))
  np.testing.assert_array_equal(gradient, np.array([1, 0, 1, 1])[:, None] * np.ones((1, 3)))


def test_an_index_of_few_bits_reaches_every_row_and_none_beyond():
  index = np.array([255, 200], np.uint8)
  np.testing.assert_array_equal(take(jnp.arange(300.0), index), index)
  np.testing.assert_array_equal(take(jnp.arange(210.0), index), [np.nan, 200])


def test_entries_and_their_gradients():
  index = np.array([2, 3, -1, 0])
  there = (index >= 0) & (index < 3)
  gradient, found = jax.grad(lambda x: (jnp.where(there, y := pick(x, index), 0).sum(), y), has_aux=True)(TABLE)
  np.testing.assert_array_equal(found, np.where(there, TABLE[np.arange(4), index % 3], np.nan))
  np.testing.assert_array_equal(gradient, np.eye(3)[index % 3] * there[:, None])
  cube, places = np.arange(24.0).reshape(2, 3, 4), np.array([[3, 0, 4], [-1, 1, 2]])
  np.testing.assert_array_equal(pick(jnp.asarray(cube), places), [[3, 4, np.nan], [np.nan, 17, 22]])


@pytest.mark.parametrize('dtype', [np.float32, jnp.bfloat16])
def test_the_largest_is_that_of_argmax_and_of_equals_the_first(dtype):
  values = np.random.default_rng(0).integers(4, size=(50, 6, 5)).astype(dtype)
  for index in range(-1, 6):
    found = jax.jit(is_largest)(values, np.full((50, 6), index))
    np.testing.assert_array_equal(found, values.argmax(-1) == index)
  assert not is_largest(jnp.array([[np.nan, 1], [1, np.nan], [2, 1]]), np.array([1, 0, 2])).any()
  assert not is_largest(jnp.array([[np.nan, 1]]), np.array([0])).any()


def test_an_embedding_is_that_of_linen():
  tokens = np.array([[3, 0, 4], [1, 9, 2]])
  ours, linen = Embed(4, 3), nn.Embed(4, 3)
  variables = linen.init(jax.random.key(0), tokens)
  expected = np.array(linen.apply(variables, tokens))
  np.testing.assert_array_equal(ours.apply(variables, tokens), expected)
  assert np.isnan(expected[0, 2]).all()
