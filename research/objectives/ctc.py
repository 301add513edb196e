"""Connectionist temporal classification: sequence labels without alignments."""

import jax
import jax.numpy as jnp
import optax
from jax import Array
from jaxtyping import Float, Int

from research.expected import Expected, labels
from research.metrics import Mean, filled, mean
from research.objectives.base import apply, expecting
from research.ops.ctc import check_blank, greedy_decode
from research.ops.edit_distance import edit_distance
from research.ops.padding import valid
from research.types import Aux, Objective


def ctc(blank_id: int = 0) -> Objective:
  """Negative log-likelihood of a string of labels, over all its alignments with the frames; the mean over strings.

  Source: Graves, Fernandez, Gomez and Schmidhuber (2006), 'Connectionist temporal classification'.

  Logits are [batch, frames, classes] of which `lengths` [batch] frames are valid; `targets` [batch, labels] hold
  `target_lengths` [batch] classes other than `blank_id`. Reports `label_error_rate`, the edit distance of
  the greedy decoding over the number of labels, and `too_short`, the fraction of strings with fewer frames than their
  labels need: they have no alignment and are excluded from the loss and its gradient. Raises ConfigError for a
  `blank_id` that is not a class.
  """

  def expects(logits):
    frames = logits.shape[1]
    lengths = Expected((), at_least=0, at_most=frames, integer=True, why=f'the model has logits of {frames} frames')
    return {'lengths': lengths, 'targets': labels(logits, shape=(None,), never=blank_id, lengths='target_lengths')}

  @expecting(expects)
  def objective(model, variables, batch, key, train):
    logits, mutable = apply(model, variables, batch, key, train)
    mask, lengths = batch.get('mask', jnp.ones(len(logits))), batch['lengths']
    targets, target_lengths = (filled(batch[name], mask) for name in ('targets', 'target_lengths'))
    fits = lengths >= frames_needed(targets, target_lengths)
    losses = ctc_loss(logits, lengths, targets, target_lengths, blank_id)
    predictions = greedy_decode(jax.lax.stop_gradient(logits), lengths, blank_id)
    errors = edit_distance(targets, target_lengths, predictions.labels, predictions.lengths)
    metrics = {
      'label_error_rate': Mean(mean(errors, mask).total, mean(target_lengths, mask).total),
      'too_short': mean((~fits).astype(logits.dtype), mask),
    }
    return mean(losses, mask * fits), Aux(metrics, mutable)

  return objective


def ctc_loss(
  logits: Float[Array, 'batch frames classes'],
  lengths: Int[Array, ' batch'],
  targets: Int[Array, 'batch labels'],
  target_lengths: Int[Array, ' batch'],
  blank_id: int = 0,
) -> Float[Array, ' batch']:
  """Negative log-likelihood of each string; 1e5 or more if it has no alignment with positive probability.

  Logits of impossible classes may be -inf. Padding may contain anything.
  """
  check_blank(blank_id, logits.shape[-1])
  frame, label = valid(lengths, logits.shape[1]), valid(target_lengths, targets.shape[1])
  logits = jnp.where(frame[..., None], logits, 0).astype(jnp.promote_types(logits.dtype, jnp.float32))
  least = jax.lax.stop_gradient(logits.max(-1, keepdims=True)) - 1e5  # inf - inf would be NaN
  logits = jnp.maximum(logits, least)
  targets = jnp.where(label, targets, blank_id)
  return optax.ctc_loss(logits, 1.0 - frame, targets, 1.0 - label, blank_id=blank_id)


def frames_needed(targets: Int[Array, 'batch labels'], target_lengths: Int[Array, ' batch']) -> Int[Array, ' batch']:
  """One frame per label, and one for the blank between repeated labels."""
  repeated = (targets[:, 1:] == targets[:, :-1]) & valid(target_lengths, targets.shape[1])[:, 1:]
  return target_lengths + repeated.sum(axis=1, dtype=target_lengths.dtype)
