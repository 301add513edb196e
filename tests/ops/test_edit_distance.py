"""Edit distance against the recursion that defines it."""

import functools

import jax
import numpy as np

from research.ops.edit_distance import edit_distance

RANDOM = np.random.default_rng(0)
DISTANCE = jax.jit(edit_distance)


def by_recursion(one, other) -> int:
  @functools.cache
  def distance(i, j):
    if not i or not j:
      return i + j
    replaced = distance(i - 1, j - 1) + (one[i - 1] != other[j - 1])
    return min(replaced, distance(i - 1, j) + 1, distance(i, j - 1) + 1)

  return distance(len(one), len(other))


def test_batches_are_the_recursion_whatever_the_padding():
  labels, predictions = RANDOM.integers(0, 3, (200, 7)), RANDOM.integers(0, 3, (200, 11))
  lengths, guessed = RANDOM.integers(0, 8, 200), RANDOM.integers(0, 12, 200)
  given = labels, lengths, predictions, guessed
  expected = [by_recursion(tuple(a[:n]), tuple(b[:m])) for a, n, b, m in zip(*given, strict=True)]
  ours = DISTANCE(*given)
  np.testing.assert_array_equal(ours, expected)
  assert ours.dtype == np.int32 and min(expected) == 0 and max(expected) == 11


def test_known_words():
  pairs = [('kitten', 'sitting', 3), ('saturday', 'sunday', 3), ('', 'abc', 3), ('abc', '', 3), ('same', 'same', 0)]
  for one, other, expected in pairs:
    arrays = [np.array([list(word.encode().ljust(9, b'?'))]) for word in (one, other)]
    lengths = [np.array([len(word)]) for word in (one, other)]
    assert DISTANCE(arrays[0], lengths[0], arrays[1], lengths[1]) == expected


def test_double_precision_changes_nothing(x64):
  given = np.array([[1, 2, 3]]), np.array([3]), np.array([[1, 3]]), np.array([2])
  assert edit_distance(*given) == 1
