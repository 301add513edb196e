"""Cross-entropy of the tokens of a target, given its source."""

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Float, Int, Num

from research.errors import check_range
from research.metrics import mean
from research.objectives.base import Aux, Objective, apply
from research.ops.padding import valid


def token_cross_entropy(label_smoothing: float = 0.0) -> Objective:
  """Mean over tokens of the cross-entropy of logits [batch, length, vocabulary] with `targets` [batch, length].

  Of an example the first `target_lengths` [batch] tokens count. Reports `token_accuracy` under teacher forcing.

  Args:
    label_smoothing: part of the target's mass that is spread evenly over the vocabulary (Szegedy et al. 2016, sec. 7).

  Raises ConfigError for a smoothing that is not below 1.
  """
  check_range('label_smoothing', label_smoothing, below=1)

  def objective(model, variables, batch, key, train):
    logits, mutable = apply(model, variables, batch, key, train)
    targets, real = batch['targets'], _real(batch['targets'], batch['target_lengths'], batch.get('mask'))
    right = (logits.argmax(-1) == targets).astype(logits.dtype)
    losses = _smoothed_cross_entropy(logits, targets, label_smoothing)
    return mean(losses, real), Aux({'token_accuracy': mean(right, real)}, mutable)

  return objective


def _real(
  targets: Int[ArrayLike, 'batch length'],
  lengths: Int[ArrayLike, ' batch'],
  mask: Num[ArrayLike, ' batch'] | None,
) -> Num[Array, 'batch length']:
  """1 for the tokens that count, 0 for what fills a sentence or a batch up."""
  real = valid(lengths, targets.shape[1])
  return real * (1 if mask is None else jnp.asarray(mask)[:, None])


def _smoothed_cross_entropy(
  logits: Float[Array, 'batch length vocabulary'], targets: Int[ArrayLike, 'batch length'], label_smoothing: float
) -> Float[Array, 'batch length']:
  """Without a one-hot array: it would be as large as the logits."""
  of_target = jnp.take_along_axis(logits, jnp.asarray(targets)[..., None], -1)[..., 0]
  smooth = label_smoothing * logits.mean(-1) if label_smoothing else 0
  return jax.nn.logsumexp(logits, -1) - (1 - label_smoothing) * of_target - smooth
