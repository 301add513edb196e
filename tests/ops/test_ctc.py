"""Decoding against the sum over all alignments, which tiny cases allow."""

import itertools
from collections import defaultdict

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import log_softmax

from research.errors import ConfigError
from research.ops.ctc import greedy_decode, prefix_beam_search

RANDOM = np.random.default_rng(0)
FRAMES, CLASSES = 5, 3


def collapsed(alignment, blank_id) -> tuple[int, ...]:
  """Labels of an alignment: repeats merged, blanks taken away."""
  return tuple(label for label, _ in itertools.groupby(alignment) if label != blank_id)


def probabilities(logits, blank_id) -> dict[tuple[int, ...], float]:
  """Of every string of labels, summed over its alignments."""
  chances, sums = np.exp(log_softmax(logits.astype(float), axis=-1)), defaultdict(float)
  for alignment in itertools.product(range(logits.shape[1]), repeat=len(logits)):
    sums[collapsed(alignment, blank_id)] += np.prod(chances[np.arange(len(logits)), alignment])
  return sums


GREEDY = jax.jit(greedy_decode, static_argnames='blank_id')


def strings(decoded) -> list[tuple[int, ...]]:
  return [tuple(labels[:length]) for labels, length in zip(*map(np.asarray, decoded), strict=True)]


@pytest.mark.parametrize('blank_id', [0, 2])
def test_greedy_is_the_best_alignment_collapsed(blank_id):
  logits, lengths = RANDOM.normal(size=(300, FRAMES, CLASSES)), RANDOM.integers(0, FRAMES + 1, 300)
  decoded = GREEDY(logits, lengths, blank_id=blank_id)
  expected = [collapsed(row[:n].argmax(-1), blank_id) for row, n in zip(logits, lengths, strict=True)]
  assert strings(decoded) == expected
  assert all(not labels[length:].any() for labels, length in zip(*map(np.asarray, decoded), strict=True))


@pytest.mark.parametrize('blank_id', [0, 2])
def test_a_wide_beam_finds_every_string_with_its_probability(blank_id):
  logits, lengths = 2 * RANDOM.normal(size=(20, FRAMES, CLASSES)), RANDOM.integers(1, FRAMES + 1, 20)
  decoded, scores = prefix_beam_search(logits, lengths, beam_size=64, max_length=FRAMES, blank_id=blank_id)
  for row, length, labels, sizes, score in zip(logits, lengths, *decoded, scores, strict=True):
    expected = probabilities(row[:length], blank_id)
    found = strings((labels, sizes))[: len(expected)]
    assert len(set(found)) == len(expected) and set(found) == set(expected), 'each string once'
    np.testing.assert_allclose(np.exp(score[: len(found)]), [expected[string] for string in found], rtol=1e-4)
    assert (np.diff(score[: len(found)]) <= 1e-5).all() and (score[len(expected) :] <= -1e29).all()


@pytest.mark.parametrize('impossible', [1, 2])
@pytest.mark.parametrize('blank_id', [0, 2])
def test_an_impossible_class_is_in_no_string(blank_id, impossible):
  """Also where it is the blank: then labels never repeat."""
  logits = RANDOM.normal(size=(8, FRAMES, CLASSES))
  logits[..., impossible] = -np.inf
  lengths = np.full(8, FRAMES)
  assert strings(GREEDY(logits, lengths, blank_id=blank_id)) == [collapsed(row.argmax(-1), blank_id) for row in logits]
  decoded, scores = prefix_beam_search(logits, lengths, beam_size=64, max_length=FRAMES, blank_id=blank_id)
  for row, labels, sizes, score in zip(logits, *decoded, scores, strict=True):
    expected = {string: chance for string, chance in probabilities(row, blank_id).items() if chance > 0}
    found = strings((labels, sizes))[: len(expected)]
    assert set(found) == set(expected) and (score[len(expected) :] < -9e4).all()
    np.testing.assert_allclose(np.exp(score[: len(found)]), [expected[string] for string in found], rtol=1e-4)


def test_the_most_probable_string_is_not_that_of_the_best_alignment():
  """Blank is best in both frames at .6, yet 'a' sums to .64: .4 * .4 + 2 * .4 * .6 (Graves et al. 2006, fig. 2)."""
  logits = np.log([[[0.6, 0.4], [0.6, 0.4]]])
  assert strings(GREEDY(logits, np.array([2]))) == [()]
  decoded, scores = prefix_beam_search(logits, np.array([2]), beam_size=2, max_length=2)
  assert strings((decoded.labels[:, 0], decoded.lengths[:, 0])) == [(1,)]
  np.testing.assert_allclose(np.exp(scores[0]), [0.64, 0.36], rtol=1e-5)


def test_a_narrow_beam_gives_lower_bounds_and_mostly_the_best():
  logits = 2 * RANDOM.normal(size=(60, FRAMES, CLASSES))
  decoded, scores = prefix_beam_search(logits, np.full(60, FRAMES), beam_size=4, max_length=FRAMES)
  best = strings((decoded.labels[:, 0], decoded.lengths[:, 0]))
  sums = [probabilities(row, 0) for row in logits]
  found = np.array([each[string] for each, string in zip(sums, best, strict=True)])
  assert (np.exp(scores[:, 0]) <= found * (1 + 1e-4)).all()
  assert np.mean(found >= [max(each.values()) - 1e-9 for each in sums]) > 0.9


def test_padding_changes_no_decoding_and_no_string_is_longer_than_allowed():
  logits, lengths = 3 * RANDOM.normal(size=(30, FRAMES, CLASSES)), RANDOM.integers(0, FRAMES + 1, 30)
  other = np.where(np.arange(FRAMES)[None, :, None] < lengths[:, None, None], logits, 9 * RANDOM.normal())
  for decode in (GREEDY, lambda *given: prefix_beam_search(*given, beam_size=4, max_length=2)):
    jax.tree.map(np.testing.assert_array_equal, decode(logits, lengths), decode(other, lengths))
  decoded, _ = prefix_beam_search(logits, lengths, beam_size=4, max_length=2)
  assert decoded.lengths.max() == 2
  assert (decoded.lengths[lengths == 0] == 0).all()


def test_scores_of_half_precision_are_summed_in_float32():
  logits = jnp.asarray(RANDOM.normal(size=(1, 300, CLASSES)), jnp.bfloat16)
  half, single = (
    prefix_beam_search(given, np.array([300]), max_length=200) for given in (logits, logits.astype(jnp.float32))
  )
  jax.tree.map(np.testing.assert_array_equal, half, single)


@pytest.mark.parametrize('options', [{'blank_id': -1}, {'blank_id': CLASSES}, {'beam_size': 0}, {'max_length': 0}])
def test_what_cannot_be_meant_is_refused(options):
  ((name, value),) = options.items()
  for decode in (greedy_decode, prefix_beam_search) if name == 'blank_id' else (prefix_beam_search,):
    with pytest.raises(ConfigError, match=f'{name}={value}: must be a whole number'):
      decode(jnp.zeros((1, FRAMES, CLASSES)), jnp.array([FRAMES]), **options)


def test_a_single_beam_keeps_the_most_probable_prefix():
  logits = 3 * np.eye(CLASSES)[np.array([[1, 1, 0, 1, 2]])]
  decoded, scores = prefix_beam_search(logits, np.array([FRAMES]), beam_size=1, max_length=FRAMES)
  assert strings((decoded.labels[:, 0], decoded.lengths[:, 0])) == [(1, 1, 2)]
  assert 0.5 < np.exp(scores[0, 0]) < probabilities(logits[0], 0)[1, 1, 2]
