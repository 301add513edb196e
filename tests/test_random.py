"""Keys: functions of the seed, a name and a number, and never one of another."""

import zlib

import jax
import jax.numpy as jnp
import numpy as np

from research import random

KEY = jax.random.key(3)


def data(*keys) -> list[tuple]:
  return [tuple(np.asarray(jax.random.key_data(key)).tolist()) for key in keys]


def test_a_stream_is_that_of_its_name_and_step():
  expected = jax.random.fold_in(jax.random.fold_in(KEY, zlib.crc32(b'augment')), 7)
  assert data(random.stream(KEY, 'augment', 7)) == data(expected)
  assert data(random.stream(KEY, 'augment')) == data(random.stream(KEY, 'augment', 0))
  others = [random.stream(KEY, name, step) for name in ('augment', 'dropout') for step in range(3)]
  assert len(set(data(*others))) == 6


def test_an_example_has_the_key_of_its_index_in_any_batch():
  keys = random.per_example(KEY, jnp.array([5, 2, 5]))
  assert data(*keys) == data(*(jax.random.fold_in(KEY, index) for index in (5, 2, 5)))


def test_each_device_has_a_key_of_its_own():
  assert random.per_device(KEY, '') is KEY
  draw = jax.vmap(lambda _: jax.random.key_data(random.per_device(KEY, 'data')), axis_name='data')
  assert [tuple(row) for row in draw(jnp.zeros(3)).tolist()] == data(*(jax.random.fold_in(KEY, n) for n in range(3)))
