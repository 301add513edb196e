"""Transfers host arrays to a mesh: each process loads only the rows of its own devices."""

import collections
import math
from collections.abc import Callable, Mapping

import jax
import numpy as np
from jax import Array
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

BATCH_AXES = ('data', 'fsdp')  # mesh axes along which a batch is sharded
IN_FLIGHT = 16  # computations that the host may run ahead of the devices


class InFlight:
  """Bounds the number of computations in flight.

  XLA allows 32 per CPU device. Once all are taken, collectives deadlock: one device waits in an all-reduce for another,
  which cannot start.
  """

  def __init__(self):
    self._pending = collections.deque()

  def add(self, result) -> None:
    """Records a result of the newest computation, and waits for the one `IN_FLIGHT` before it."""
    self._pending.append(result)
    if len(self._pending) > IN_FLIGHT:
      jax.block_until_ready(self._pending.popleft())


def batch_sharding(mesh: Mesh, axis: int = 0) -> NamedSharding:
  """Sharding of arrays whose `axis` is the batch; replicated on a mesh without batch axes."""
  names = tuple(name for name in BATCH_AXES if name in mesh.axis_names)
  return NamedSharding(mesh, PartitionSpec(*[None] * axis, names))


def num_shards(mesh: Mesh) -> int:
  """Number of shards of a batch."""
  return math.prod(mesh.shape.get(name, 1) for name in BATCH_AXES)


def put(array: np.ndarray, sharding: NamedSharding) -> Array:
  """Transfers an array that every process has as a whole."""
  if sharding.is_fully_addressable:
    return jax.device_put(array, sharding)
  return jax.make_array_from_callback(array.shape, sharding, lambda where: array[where])


def put_rows(
  rows: Callable[[np.ndarray], Mapping[str, np.ndarray]], index: np.ndarray, sharding: NamedSharding
) -> dict[str, Array]:
  """The batch of the examples `index` [batch]: arrays [batch, ...] with the given sharding.

  `rows` is called once, for the examples of this process's devices.
  """
  if sharding.is_fully_addressable:
    return jax.device_put({**rows(index), 'index': index}, sharding)
  places = np.arange(len(index))
  held = sharding.addressable_devices_indices_map(index.shape).values()
  own = np.unique(np.concatenate([places[where] for where in held]))

  def place(array: np.ndarray) -> Array:
    whole = (len(index), *array.shape[1:])
    return jax.make_array_from_callback(whole, sharding, lambda where: array[np.searchsorted(own, places[where[0]])])

  return jax.tree.map(place, {**rows(index[own]), 'index': index[own]})


def fetch(tree):
  """NumPy arrays of a tree, each as a whole; if other processes hold shards, all must call this."""
  arrays = [leaf for leaf in jax.tree.leaves(tree) if isinstance(leaf, Array)]
  if all(array.is_fully_addressable or array.is_fully_replicated for array in arrays):
    return jax.device_get(tree)
  return multihost_utils.process_allgather(tree, tiled=True)
