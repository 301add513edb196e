"""Batches on the devices are those of the source, at any step, whether the set is small or large."""

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


def test_the_next_batches_are_loaded_ahead_and_no_others_kept(mesh):
  asked = []

  class Noting(Source):
    def indices(self, step):
      asked.append(step)
      return super().indices(step)

  with feed.ThreadPoolExecutor(1) as thread:
    streamed = Streamed(Noting(EXAMPLES, 16), mesh, thread)
    streamed.inputs(0)
    streamed.inputs(50)  # as when a run goes on
    streamed.inputs(51)
    assert sorted(streamed._pending) == [52, 53]
  assert asked == [0, 1, 2, 50, 51, 52, 53]


def test_an_error_of_the_loading_thread_arrives(mesh, monkeypatch):
  def broken(self, indices):
    raise OSError('gone')

  monkeypatch.setattr(Arrays, 'rows', broken)
  with feed.ThreadPoolExecutor(1) as thread, pytest.raises(OSError, match='gone'):
    Streamed(SOURCE, mesh, thread).inputs(0)
