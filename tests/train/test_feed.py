"""Batches on the devices are those of the source, at any step, whether the set is small or large."""

import itertools
import random
import threading
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research.data import feed
from research.data.examples import Arrays
from research.data.feed import Resident, Streamed, make_feed
from research.data.source import Source
from research.parallel.mesh import MeshShape, make_mesh

EXAMPLES = Arrays({'inputs': np.arange(200, dtype=np.uint8).reshape(100, 2), 'targets': np.arange(100, dtype=np.int32)})
SOURCE = Source(EXAMPLES, 16, seed=3)


@pytest.fixture(params=[1, 8])
def mesh(request):
  return make_mesh(MeshShape(request.param), 16)


@pytest.fixture(params=[Resident, Streamed])
def batches(request, mesh, monkeypatch):
  """The feed of a kind, chosen by the size of the set."""
  monkeypatch.setattr(feed, 'RESIDENT_BYTES', 2**30 if request.param is Resident else 0)
  with make_feed(SOURCE, mesh) as made:
    assert isinstance(made, request.param)
    yield made


def test_batches_are_those_of_the_source(batches, mesh):
  make = jax.jit(batches.batch)
  for step in (0, 1, 2, 126, 127, 128, 129, 5000, 3):  # in turn, over a chunk's end, and as a resumed run asks
    batch = make(batches.inputs(step), jnp.int32(step))
    index = SOURCE.indices(step)
    np.testing.assert_array_equal(batch['index'], index)
    np.testing.assert_array_equal(batch['inputs'], EXAMPLES.arrays['inputs'][index])
    np.testing.assert_array_equal(batch['targets'], EXAMPLES.arrays['targets'][index])
    assert batch['inputs'].dtype == np.uint8


def test_devices_share_a_batch(batches, mesh):
  batch = jax.jit(batches.batch)(batches.inputs(0), jnp.int32(0))
  for array in batch.values():
    assert {shard.data.shape[0] for shard in array.addressable_shards} == {16 // mesh.size}
    assert len(array.addressable_shards) == mesh.size


@pytest.fixture
def large(monkeypatch):
  """Every set is too large for the devices; function that replaces how rows (arrays, indices) are read."""
  monkeypatch.setattr(feed, 'RESIDENT_BYTES', 0)
  return lambda rows: monkeypatch.setattr(Arrays, 'rows', rows)


READ = Arrays.rows


def test_the_next_batches_are_loaded_ahead_and_no_others_kept(mesh, large):
  asked = []

  class Noting(Source):
    def indices(self, step):
      asked.append(step)
      return super().indices(step)

  with make_feed(Noting(EXAMPLES, 16), mesh) as streamed:
    streamed.inputs(0)
    streamed.inputs(50)  # as when a run is resumed
    streamed.inputs(51)
    assert sorted(streamed._pending) == [52, 53]
  assert asked == sorted(set(asked)) and set(asked) <= {0, 1, 2, 50, 51, 52, 53}


def test_threads_load_at_once_and_the_batches_come_in_the_order_of_the_steps(mesh, large):
  together, calls = threading.Barrier(3), itertools.count()

  def rows(arrays, indices):
    if next(calls) < 30:  # three threads begin together, and finish in any order
      together.wait(timeout=60)
      time.sleep(random.random() / 500)
    return READ(arrays, indices)

  large(rows)
  with make_feed(SOURCE, mesh, threads=3) as streamed:
    for step in range(40):
      batch, index = streamed.inputs(step), SOURCE.indices(step)
      np.testing.assert_array_equal(batch['index'], index)
      np.testing.assert_array_equal(batch['inputs'], EXAMPLES.arrays['inputs'][index])


def loaders():
  return [thread for thread in threading.enumerate() if thread.name.startswith('loader')]


def test_an_error_of_a_thread_is_raised_at_the_step_of_its_batch_and_the_threads_end(mesh, large):
  def rows(arrays, indices):
    if np.array_equal(indices, SOURCE.indices(2)):
      raise OSError('image 7 is gone')
    return READ(arrays, indices)

  large(rows)
  with pytest.raises(OSError, match='image 7 is gone'), make_feed(SOURCE, mesh, threads=3) as streamed:
    streamed.inputs(0)
    streamed.inputs(1)
    assert loaders()
    streamed.inputs(2)
  assert not loaders()


def test_what_no_thread_has_begun_is_not_loaded_once_the_feed_is_left(mesh, large):
  asked, go = [], threading.Event()

  def rows(arrays, indices):
    asked.append(indices)
    if len(asked) > 1:
      go.wait(timeout=60)
    return READ(arrays, indices)

  large(rows)
  with make_feed(SOURCE, mesh) as streamed:
    streamed.inputs(0)
    while len(asked) < 2:  # batch 1 is under way, batch 2 is not
      time.sleep(0.001)
    threading.Timer(0.05, go.set).start()
  assert len(asked) == 2
