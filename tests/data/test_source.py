"""Batches by step: a pure function of (seed, step) that leaves no example out."""

import numpy as np
import pytest

from research.data.examples import Arrays, fingerprint_of
from research.data.source import Source
from research.errors import ConfigError

EXAMPLES = Arrays({'inputs': np.arange(10) * 3})


def stream(source: Source, steps: int) -> np.ndarray:
  return np.concatenate([source.indices(step) for step in range(steps)])


@pytest.mark.parametrize('batch_size', [1, 3, 5, 10, 24])
def test_every_epoch_holds_every_example_once(batch_size):
  indices = stream(Source(EXAMPLES, batch_size), -(-60 // batch_size))[:60]
  epochs = indices.reshape(6, 10)
  np.testing.assert_array_equal(np.sort(epochs, axis=1), np.tile(np.arange(10), (6, 1)))
  assert len(set(map(bytes, epochs))) == 6, 'a new order every epoch'


@pytest.mark.parametrize('batch_size', [3, 24])
def test_any_step_alone_is_the_same_as_in_turn(batch_size):
  source = Source(EXAMPLES, batch_size, seed=4)
  in_turn = [source.indices(step) for step in range(30)]
  for step in (29, 0, 17, 3, 16):
    alone = Source(EXAMPLES, batch_size, seed=4).indices(step)
    assert alone.dtype == np.int32 and alone.shape == (batch_size,)
    np.testing.assert_array_equal(alone, in_turn[step])


def test_the_stream_does_not_depend_on_the_batch_size():
  np.testing.assert_array_equal(stream(Source(EXAMPLES, 6), 5), stream(Source(EXAMPLES, 15), 2))


@pytest.mark.parametrize(
  'numbers, name', [((0, 0), 'batch_size=0'), ((2.5, 0), 'batch_size=2.5'), ((2, -1), 'seed=-1')]
)
def test_what_cannot_be_meant_is_refused(numbers, name):
  with pytest.raises(ConfigError, match=name):
    Source(EXAMPLES, *numbers)


def test_seeds_differ():
  assert not np.array_equal(stream(Source(EXAMPLES, 10, seed=0), 3), stream(Source(EXAMPLES, 10, seed=1), 3))


def test_a_caller_who_writes_into_a_batch_changes_no_other():
  source = Source(EXAMPLES, 10)
  before = source.indices(0).copy()
  source.indices(0)[:] = 0
  np.testing.assert_array_equal(source.indices(0), before)


def test_rows_and_fingerprint_of_arrays():
  np.testing.assert_array_equal(EXAMPLES.rows(np.array([4, 1]))['inputs'], [12, 3])
  same = Arrays({'inputs': np.arange(10) * 3})
  other = Arrays({'inputs': np.where(np.arange(10) == 9, 0, np.arange(10) * 3)})
  assert len(EXAMPLES) == 10 and EXAMPLES.fingerprint() == same.fingerprint() != other.fingerprint()
  assert EXAMPLES.fingerprint() != Arrays({'targets': np.arange(10) * 3}).fingerprint()
  assert fingerprint_of('a', np.frombuffer(b'bc', np.uint8)) == 'ba7816bf8f01cfea'  # FIPS 180-2, of 'abc'


def spoiled(mask: np.ndarray) -> Source:
  """Inputs and targets of which example 2, and the second target of example 5, are NaN."""
  inputs, targets = np.zeros((8, 3), np.float32), np.zeros((8, 2), np.float32)
  inputs[2], targets[2], targets[5, 1] = np.nan, np.nan, np.nan
  return Source(Arrays({'inputs': inputs, 'targets': targets, 'mask': mask}), 8)


@pytest.mark.parametrize(
  'masked, cause',
  [
    ([], 'example 2 has non-finite inputs'),
    ([2], 'example 5 has non-finite targets'),
    ([2, 5], ''),
    (([2, 2, 5], [0, 1, 1]), ''),
    (([2, 5], [1, 1]), 'example 2 has non-finite inputs'),  # inputs count wherever anything of their example does
  ],
)
def test_the_cause_of_a_nan_is_looked_for_where_examples_count(masked, cause):
  mask = np.ones((8, 2) if isinstance(masked, tuple) else 8)
  mask[masked] = 0
  assert spoiled(mask).not_finite(0) == cause


def test_the_first_example_of_a_batch_that_is_not_finite_is_named():
  arrays = {'ids': np.arange(10), 'inputs': np.ones((10, 2, 3)), 'targets': np.ones(10, np.float32)}
  source = Source(Arrays(arrays), 10)
  assert source.not_finite(0) == ''
  arrays['targets'][source.indices(0)[3]] = np.inf
  assert source.not_finite(0) == f'example {source.indices(0)[3]} has non-finite targets'
  arrays['inputs'][source.indices(0)[[2, 5]], 1, 2] = np.nan
  assert source.not_finite(0) == f'example {source.indices(0)[2]} has non-finite inputs'
