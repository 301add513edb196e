"""Named streams of random keys: every key is a function of (seed, stream, step)."""

import zlib

import jax
from jax import Array


def stream(key: Array, name: str, step: int | Array = 0) -> Array:
  """Key of the stream `name` at `step`; `key` is the run's, `jax.random.key(seed)`."""
  return jax.random.fold_in(jax.random.fold_in(key, zlib.crc32(name.encode())), step)


def per_device(key: Array, axis_name: str) -> Array:
  """A different key for each device of a mapped axis (pmap); without a name the key itself."""
  return jax.random.fold_in(key, jax.lax.axis_index(axis_name)) if axis_name else key


def per_example(key: Array, index: Array) -> Array:
  """One key for each global example `index` [batch]: the same on any mesh and in any micro-batch."""
  return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, index)
