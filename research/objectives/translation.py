"""Cross-entropy of target tokens given a source."""

from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Int, Num

from research.errors import check_range
from research.expected import labels
from research.metrics import filled, mean, spread
from research.objectives.base import apply, expecting
from research.objectives.classification import cross_entropies
from research.ops.gather import is_largest
from research.ops.padding import valid
from research.types import Aux, Objective


def token_cross_entropy(label_smoothing: float = 0.0) -> Objective:
  """Mean over tokens of the cross-entropy of logits [batch, length, vocabulary] with `targets` [batch, length].

  The first `target_lengths` [batch] tokens of each target count. Reports `token_accuracy` under teacher forcing.

  Args:
    label_smoothing: fraction of the target distribution spread over the vocabulary (Szegedy et al. 2016, sec. 7).

  Raises ConfigError for a smoothing that is not below 1.
  """
  check_range('label_smoothing', label_smoothing, below=1)

  @expecting(lambda logits: {'targets': labels(logits, lengths='target_lengths')})
  def objective(model, variables, batch, key, train):
    logits, mutable = apply(model, variables, batch, key, train)
    real = _real(batch['targets'], batch['target_lengths'], batch.get('mask'))
    targets = filled(batch['targets'], real)
    right = is_largest(logits, targets).astype(logits.dtype)
    losses = cross_entropies(logits, targets, label_smoothing)
    return mean(losses, real), Aux({'token_accuracy': mean(right, real)}, mutable)

  return objective


def _real(
  targets: Int[ArrayLike, 'batch length'],
  lengths: Int[ArrayLike, ' batch'],
  mask: Num[ArrayLike, ' batch ...'] | None,
) -> Num[Array, 'batch length']:
  """1 for tokens that count, 0 for padding."""
  real = valid(lengths, targets.shape[1])
  return real * (1 if mask is None else spread(mask, targets))
