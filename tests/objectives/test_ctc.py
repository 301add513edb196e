"""Connectionist temporal classification against the sum over all alignments."""

import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from scipy.special import log_softmax

from research.errors import ConfigError
from research.objectives.ctc import ctc, ctc_loss, frames_needed

RANDOM = np.random.default_rng(1)
FRAMES, CLASSES = 6, 3
LOGITS = RANDOM.normal(size=(8, FRAMES, CLASSES)).astype(np.float32)
LENGTHS = np.array([6, 5, 4, 3, 6, 3, 2, 2], np.int32)
LABELS = [(1, 2), (1, 1), (2, 1, 2), (1, 2, 1), (), (2,), (1, 1), (1, 2, 1)]  # the last two are too short
FITS = np.array([1, 1, 1, 1, 1, 1, 0, 0])


class Given(nn.Module):
  """Gives its inputs as logits."""

  def __call__(self, inputs, train=False):
    return inputs


def batch_of(logits=LOGITS, blank_id=0, padding=0, **fields):
  """The batch whose labels are LABELS, with the classes renamed so that `blank_id` is none of them."""
  targets = np.full((len(LABELS), 4), padding, np.int32)
  for row, labels in zip(targets, LABELS, strict=True):
    row[: len(labels)] = labels if blank_id == 0 else np.array(labels, int) - 1
  lengths = {'lengths': LENGTHS, 'target_lengths': np.array([len(labels) for labels in LABELS], np.int32)}
  return jax.tree.map(jnp.asarray, {'inputs': logits, 'targets': targets, **lengths, **fields})


@partial(jax.jit, static_argnames='blank_id')
def _measured(batch, blank_id):
  def loss(logits):
    value, aux = ctc(blank_id)(Given(), {}, {**batch, 'inputs': logits}, jax.random.key(0), True)
    return value.total, (value, aux.metrics)

  gradient, (value, metrics) = jax.grad(loss, has_aux=True)(batch['inputs'])
  return value, metrics, gradient


def measure(batch, blank_id=0):
  """Loss, metrics, and the gradient of the loss's total by the logits."""
  return jax.tree.map(np.asarray, _measured(batch, blank_id))


def likelihoods(logits=LOGITS) -> np.ndarray:
  """Of each string, summed over its alignments with its frames, blank 0."""
  totals = []
  for row, length, labels in zip(logits.astype(float), LENGTHS, LABELS, strict=True):
    chances, total = np.exp(log_softmax(row[:length], axis=-1)), 0.0
    for path in itertools.product(range(CLASSES), repeat=int(length)):
      if tuple(label for label, _ in itertools.groupby(path) if label) == labels:
        total += np.prod(chances[np.arange(length), path])
    totals.append(total)
  return np.array(totals)


def test_the_loss_is_the_sum_over_all_alignments():
  value, metrics, gradient = measure(batch_of())
  expected = likelihoods()
  np.testing.assert_array_equal(expected > 0, FITS > 0)
  np.testing.assert_allclose(value.total, -np.log(expected[FITS > 0]).sum(), rtol=1e-5)
  assert value.count == FITS.sum() and metrics['too_short'] == (2, 8)
  step = 1e-3
  for place in [(0, 2, 1), (3, 0, 0), (1, 4, 2)]:
    moved = [LOGITS.astype(float), LOGITS.astype(float)]
    moved[0][place] += step
    moved[1][place] -= step
    slope = -(np.log(likelihoods(moved[0])[place[0]]) - np.log(likelihoods(moved[1])[place[0]])) / (2 * step)
    np.testing.assert_allclose(gradient[place], slope, rtol=1e-3, atol=1e-5)


def test_the_loss_of_half_precision_is_summed_in_float32():
  logits = RANDOM.normal(size=(1, 300, 5))
  half, single = (jnp.asarray(logits, jnp.bfloat16).astype(dtype) for dtype in (jnp.bfloat16, jnp.float32))
  given = jnp.array([300]), jnp.ones((1, 9), jnp.int32), jnp.array([9])
  np.testing.assert_array_equal(ctc_loss(half, *given), ctc_loss(single, *given))


def test_frames_needed_count_the_blanks_between_repeats():
  batch = batch_of()
  np.testing.assert_array_equal(frames_needed(batch['targets'], batch['target_lengths']), [2, 3, 3, 3, 0, 1, 3, 3])


def test_strings_that_do_not_fit_have_no_gradient_and_change_no_loss():
  value, _, gradient = measure(batch_of())
  other = LOGITS.copy()
  other[6:] = 5 * RANDOM.normal(size=other[6:].shape)
  np.testing.assert_array_equal(gradient[6:], 0)
  assert measure(batch_of(other))[0] == value


@pytest.mark.parametrize('fill', [3.0, np.nan])
def test_padding_changes_neither_loss_nor_gradient_nor_error_rate(fill):
  mask = np.array([1, 1, 1, 1, 1, 0, 1, 1], np.float32)
  ends = np.arange(FRAMES)[None, :, None] < LENGTHS[:, None, None]
  one = measure(batch_of(mask=mask))
  other = np.where(ends, LOGITS, np.float32(fill))
  other[5] = 9 * RANDOM.normal(size=other[5].shape)
  two = batch_of(other, padding=2, mask=mask)
  two = measure({**two, **{name: two[name].at[5].set(-100) for name in ('targets', 'target_lengths')}})
  jax.tree.map(np.testing.assert_array_equal, one, two)
  np.testing.assert_array_equal(one[2][5], 0)
  np.testing.assert_array_equal(one[2][~np.broadcast_to(ends, LOGITS.shape)], 0)


def test_the_label_error_rate_is_edits_over_labels():
  """Frames that spell: right, one wrong, one missing, ..."""
  spelled = [(1, 0, 2, 2, 0, 0), (1, 1, 0, 2, 0, 0), (2, 1, 0, 0, 0, 0), (1, 2, 1, 0, 0, 0)]
  spelled += [(0, 0, 0, 0, 0, 1), (2, 2, 2, 0, 0, 0), (1, 1, 0, 0, 0, 0), (0, 0, 0, 0, 0, 0)]
  edits = 0 + 1 + 1 + 0 + 1 + 0 + 1 + 3
  _, metrics, _ = measure(batch_of(20 * np.eye(CLASSES, dtype=np.float32)[np.array(spelled)]))
  assert metrics['label_error_rate'] == (edits, sum(map(len, LABELS)))


def test_any_class_may_be_the_blank():
  value, metrics, _ = measure(batch_of())
  last = np.concatenate([LOGITS[..., 1:], LOGITS[..., :1]], axis=-1)
  same, same_metrics, _ = measure(batch_of(last, blank_id=2), blank_id=2)
  np.testing.assert_allclose(same.total, value.total, rtol=1e-6)
  assert same_metrics == metrics


@pytest.mark.parametrize('blank_id', [-1, CLASSES])
def test_a_blank_that_is_no_class_is_refused(blank_id):
  with pytest.raises(ConfigError, match=f'blank_id={blank_id}: must be a whole number from 0 to 2'):
    measure(batch_of(), blank_id)
  with pytest.raises(ConfigError, match=f'blank_id={blank_id}'):
    ctc_loss(*(batch_of()[name] for name in ('inputs', 'lengths', 'targets', 'target_lengths')), blank_id)


def test_the_lengths_are_those_of_the_logits():
  lengths = ctc().expects(LOGITS)['lengths']
  assert lengths.shape == () and str(lengths) == f'integers from 0 to {FRAMES}: the model has logits of {FRAMES} frames'


def test_an_impossible_class_costs_only_the_strings_that_have_it():
  """Four even frames of two classes: 10 of 16 alignments give (1,), as many as begin and end a run of it."""
  even = jnp.log(jnp.array([[0.5, 0.5, 0.0]]) * jnp.ones((4, 1)))[None]
  logits = jnp.concatenate([even, even])
  lengths, targets = jnp.array([4, 4]), jnp.array([[1], [2]])

  def loss(logits):
    losses = ctc_loss(logits, lengths, targets, jnp.array([1, 1]))
    return losses.sum(), losses

  gradient, losses = jax.grad(loss, has_aux=True)(logits)
  np.testing.assert_allclose(losses[0], -np.log(10 / 16), rtol=1e-6)
  assert losses[1] > 9e4 and np.isfinite(losses).all() and np.isfinite(gradient).all()
  without = jax.grad(lambda logits: ctc_loss(logits, lengths[:1], targets[:1], jnp.array([1])).sum())(even[..., :2])
  np.testing.assert_allclose(gradient[:1, :, :2], without, atol=1e-6)
