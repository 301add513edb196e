"""Decoding for connectionist temporal classification (CTC): from per-frame logits to label sequences.

An alignment has a class for every frame; merging repeats and then removing blanks gives its label sequence
(Graves et al. 2006, 'Connectionist temporal classification', sec. 3.1).
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float, Int

from research.errors import check_count, check_counts
from research.ops.padding import valid

_NEVER = -1e30  # log of probability 0, finite since inf - inf would be NaN
_IMPOSSIBLE = -1e5  # the same for a class in a frame; rounded away when added to _NEVER, so unused entries stay equal


class Decoded(NamedTuple):
  """Label sequences, padded with 0."""

  labels: Int[Array, 'batch *beam longest']
  lengths: Int[Array, ' batch *beam']


class Beams(NamedTuple):
  """Prefixes in the beam, best first, with the log-probabilities of all alignments of each."""

  labels: Int[Array, 'beam longest']
  lengths: Int[Array, ' beam']
  blank: Float[Array, ' beam']  # of the alignments whose last frame is blank
  label: Float[Array, ' beam']  # of the alignments whose last frame is the last label

  @property
  def total(self) -> Float[Array, ' beam']:
    return jnp.logaddexp(self.blank, self.label)

  @property
  def last(self) -> Int[Array, ' beam']:
    """The last label of each prefix; -1 for the empty prefix."""
    last = jnp.take_along_axis(self.labels, jnp.maximum(self.lengths - 1, 0)[:, None], axis=1)[:, 0]
    return jnp.where(self.lengths > 0, last, -1)


def check_blank(blank_id: int, num_classes: int) -> None:
  """Raises ConfigError unless the blank is one of the classes."""
  check_count('blank_id', blank_id, at_least=0, at_most=num_classes - 1)


def greedy_decode(
  logits: Float[Array, 'batch frames classes'], lengths: Int[Array, ' batch'], blank_id: int = 0
) -> Decoded:
  """Labels of the most probable alignment, at most one per frame; frames past `lengths` are ignored.

  Raises ConfigError unless the blank is one of the classes.
  """
  check_blank(blank_id, logits.shape[-1])
  best = logits.argmax(-1).astype(jnp.int32)
  before = jnp.pad(best[:, :-1], ((0, 0), (1, 0)), constant_values=-1)
  kept = valid(lengths, best.shape[1]) & (best != before) & (best != blank_id)
  place = jnp.where(kept, jnp.cumsum(kept, axis=1) - 1, best.shape[1])  # dropped entries go past the end
  labels = jax.vmap(lambda best, place: jnp.zeros_like(best).at[place].set(best, mode='drop'))(best, place)
  return Decoded(labels, kept.sum(axis=1, dtype=jnp.int32))


@partial(jax.jit, static_argnames=('beam_size', 'max_length', 'blank_id'))
def prefix_beam_search(
  logits: Float[Array, 'batch frames classes'],
  lengths: Int[Array, ' batch'],
  beam_size: int = 8,
  max_length: int = 16,
  blank_id: int = 0,
) -> tuple[Decoded, Float[Array, 'batch beam']]:
  """The most probable sequences of up to `max_length` labels, best first, and their log-probabilities.

  The probability of a sequence is summed over all its alignments whose prefixes stayed in the beam; unused entries have
  log-probabilities of -1e30 or less. Source: Graves and Jaitly (2014), 'Towards end-to-end speech
  recognition', algorithm 1; Hannun et al. (2014), arXiv:1408.2873.

  Raises ConfigError unless the blank is one of the classes and `beam_size` and `max_length` are positive.
  """
  check_blank(blank_id, logits.shape[-1])
  check_counts(beam_size=beam_size, max_length=max_length)

  def one(logits: Float[Array, 'frames classes'], length: Int[Array, '']) -> Beams:
    def frame(beams: Beams, inputs: tuple[Array, Array]) -> tuple[Beams, None]:
      scores, number = inputs
      new = _advanced(beams, scores, blank_id)
      return jax.tree.map(lambda new, old: jnp.where(number < length, new, old), new, beams), None

    never = jnp.full(beam_size, _NEVER, logits.dtype)
    empty = jnp.zeros((beam_size, max_length), jnp.int32)
    first = Beams(empty, jnp.zeros(beam_size, jnp.int32), never.at[0].set(0), never)
    scores = jnp.maximum(jax.nn.log_softmax(logits), _IMPOSSIBLE)
    return jax.lax.scan(frame, first, (scores, jnp.arange(len(logits))))[0]

  # At least float32: with fewer bits, a sum over all frames would stagnate.
  beams = jax.vmap(one)(logits.astype(jnp.promote_types(logits.dtype, jnp.float32)), lengths)
  return Decoded(beams.labels, beams.lengths), jnp.logaddexp(beams.blank, beams.label)


def _advanced(beams: Beams, scores: Float[Array, ' classes'], blank_id: int) -> Beams:
  """The best prefixes after one more frame, with log-probabilities `scores` of its classes."""
  size, max_length = beams.labels.shape
  classes = jnp.arange(len(scores))
  last = beams.last
  # Each prefix extended by each label; a repeat of the last label needs a blank in between.
  before = jnp.where(last[:, None] == classes[None], beams.blank[:, None], beams.total[:, None])
  longer = before + scores[None]
  longer = jnp.where((classes[None] == blank_id) | (beams.lengths[:, None] == max_length), _NEVER, longer)
  # An extension may equal another prefix in the beam: then the two are merged.
  parent = _is_parent(beams)
  onto = parent[:, :, None] & (last[None, :, None] == classes[None, None])  # [shorter, longer, class]
  joined = jnp.where(onto, longer[:, None], _NEVER).max((0, 2))
  longer = jnp.where(onto.any(1), _NEVER, longer)
  stay_blank = beams.total + scores[blank_id]
  stay_label = jnp.where(beams.lengths > 0, beams.label + scores[last], _NEVER)
  stay_label = jnp.logaddexp(stay_label, joined)
  # Ties go to the first in top_k: unused entries stay empty, so they never become an extension of another prefix.
  candidates = jnp.concatenate([jnp.logaddexp(stay_blank, stay_label), longer.ravel()])
  _, best = jax.lax.top_k(candidates, size)
  return _chosen(beams, best, stay_blank, stay_label, longer)


def _is_parent(beams: Beams) -> Bool[Array, 'beam beam']:
  """Whether the first prefix is the second without its last label."""
  places = jnp.arange(beams.labels.shape[1])[None, None]
  same = beams.labels[:, None] == beams.labels[None]
  begins = (same | (places >= beams.lengths[:, None, None])).all(-1)
  return begins & (beams.lengths[:, None] + 1 == beams.lengths[None])


def _chosen(beams: Beams, best: Array, stay_blank: Array, stay_label: Array, longer: Array) -> Beams:
  """The candidates numbered `best`: first the unchanged prefixes, then each prefix extended by each class."""
  size, num_classes = longer.shape
  stays = best < size
  source = jnp.where(stays, best, (best - size) // num_classes)
  added = jnp.where(stays, 0, (best - size) % num_classes)
  labels, lengths = beams.labels[source], beams.lengths[source]
  here = (jnp.arange(labels.shape[1])[None] == lengths[:, None]) & ~stays[:, None]
  return Beams(
    jnp.where(here, added[:, None], labels),
    jnp.where(stays, lengths, lengths + 1),
    jnp.where(stays, stay_blank[source], _NEVER),
    jnp.where(stays, stay_label[source], longer[source, added]),
  )
