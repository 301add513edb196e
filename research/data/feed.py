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
AHEAD = 2  # batches transferred ahead of time, or one for each thread


class Feed(Protocol):
  """`batch(inputs(step), step)` is the batch of a step: `inputs` runs on the host, `batch` inside jit."""

  def inputs(self, step: int): ...

  def batch(self, inputs, step: Array) -> Mapping[str, Array]: ...


@contextlib.contextmanager
def make_feed(source: Source, mesh: Mesh, threads: int = 1) -> Iterator[Feed]:
  """The feed of a source whose batches are sharded over the mesh; `threads` load a dataset that is not resident."""
  examples = source.examples
  if isinstance(examples, Arrays) and sum(a.nbytes for a in examples.arrays.values()) <= RESIDENT_BYTES:
    yield Resident(source, mesh)
    return
  pool = ThreadPoolExecutor(threads, 'loader')
  try:
    yield Streamed(source, mesh, pool, max(AHEAD, threads))
  finally:
    pool.shutdown(cancel_futures=True)


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
  """A large dataset is loaded ahead of time, by threads that take one batch each.

  A batch is a function of its step, so any number of threads gives the same bits. An exception in a thread is raised
  by `inputs` at the step of that batch.
  """

  def __init__(self, source: Source, mesh: Mesh, pool: Executor, ahead: int = AHEAD):
    self._source = source
    self._sharding = placement.batch_sharding(mesh)
    self._pool = pool
    self._ahead = ahead
    self._pending: dict[int, Future] = {}

  def inputs(self, step: int) -> Mapping[str, Array]:
    wanted = range(step, step + 1 + self._ahead)
    for other in self._pending.keys() - set(wanted):  # where a run is resumed at another step
      self._pending.pop(other).cancel()
    for number in wanted:
      if number not in self._pending:
        self._pending[number] = self._pool.submit(self._load, number)
    return self._pending.pop(step).result()

  def batch(self, inputs: Mapping[str, Array], step: Array) -> Mapping[str, Array]:
    return inputs

  def _load(self, step: int) -> Mapping[str, Array]:
    return placement.put_rows(self._source.examples.rows, self._source.indices(step), self._sharding)
