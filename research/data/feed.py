"""Feeds the batches of a source to the devices without stalling steps."""

import contextlib
from collections.abc import Iterator, Mapping
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from typing import Protocol

import numpy as np
from jax import Array
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from research.data.examples import Arrays
from research.data.source import Source
from research.parallel import placement

RESIDENT_BYTES = 2**30  # datasets up to this size are kept on the devices
CHUNK = 128  # steps whose indices are transferred at once
AHEAD = 2  # batches transferred ahead of time


class Feed(Protocol):
  """`batch(inputs(step), step)` is the batch of a step: `inputs` runs on the host, `batch` inside jit."""

  def inputs(self, step: int): ...

  def batch(self, inputs, step: Array) -> Mapping[str, Array]: ...


@contextlib.contextmanager
def make_feed(source: Source, mesh: Mesh) -> Iterator[Feed]:
  """The feed of a source whose batches are sharded over the mesh."""
  examples = source.examples
  if isinstance(examples, Arrays) and sum(a.nbytes for a in examples.arrays.values()) <= RESIDENT_BYTES:
    yield Resident(source, mesh)
  else:
    with ThreadPoolExecutor(1) as thread:
      yield Streamed(source, mesh, thread)


class Resident:
  """A small dataset resides on the devices; the step itself gathers its rows."""

  def __init__(self, source: Source, mesh: Mesh):
    self._source = source
    everywhere = NamedSharding(mesh, PartitionSpec())
    self._arrays = {name: placement.put(array, everywhere) for name, array in source.examples.arrays.items()}
    self._sharding = placement.batch_sharding(mesh, axis=1)
    self._chunk, self._indices = -1, None

  def inputs(self, step: int) -> tuple[Mapping[str, Array], Array]:
    chunk = step // CHUNK
    if chunk != self._chunk:
      indices = np.stack([self._source.indices(chunk * CHUNK + i) for i in range(CHUNK)])
      self._chunk, self._indices = chunk, placement.put(indices, self._sharding)
    return self._arrays, self._indices

  def batch(self, inputs: tuple[Mapping[str, Array], Array], step: Array) -> Mapping[str, Array]:
    arrays, indices = inputs
    index = indices[step % CHUNK]
    return {**{name: array[index] for name, array in arrays.items()}, 'index': index}


class Streamed:
  """A large dataset is loaded batch by batch, ahead of time, in a thread."""

  def __init__(self, source: Source, mesh: Mesh, thread: Executor):
    self._source = source
    self._sharding = placement.batch_sharding(mesh)
    self._thread = thread
    self._pending: dict[int, Future] = {}

  def inputs(self, step: int) -> Mapping[str, Array]:
    wanted = range(step, step + 1 + AHEAD)
    self._pending = {ahead: self._pending.get(ahead) or self._thread.submit(self._load, ahead) for ahead in wanted}
    return self._pending.pop(step).result()

  def batch(self, inputs: Mapping[str, Array], step: Array) -> Mapping[str, Array]:
    return inputs

  def _load(self, step: int) -> Mapping[str, Array]:
    return placement.put_rows(self._source.examples.rows, self._source.indices(step), self._sharding)
