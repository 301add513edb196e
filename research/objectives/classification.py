"""Cross-entropy losses of class logits, with accuracies."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import optax
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Float, Integer, Num

from research.errors import ConfigError, check_count, check_range
from research.expected import Expected, labels
from research.metrics import Mean, filled, mean
from research.objectives.base import apply, expecting
from research.ops.gather import is_largest, pick, take
from research.types import Aux, Objective


def softmax_cross_entropy(
  label_smoothing: float = 0.0, class_weights: Sequence[float] = (), top_k: int = 0
) -> Objective:
  """Cross-entropy of logits [..., classes] with integer targets [...]; reports `accuracy`.

  Args:
    label_smoothing: fraction of the target distribution spread over all classes (Szegedy et al. 2016, sec. 7).
    class_weights: weight of an example by its class; the loss is the weighted total over the total weight.
    top_k: also report `top_{k}`, the top-k accuracy; 0 is off.

  Raises ConfigError for a smoothing that is not below 1, targets of the wrong shape, a top_k above the number of
  classes, and unless there is one nonnegative weight per class.
  """
  _check_fields(label_smoothing, class_weights)
  check_count('top_k', top_k, at_least=0)

  @expecting(lambda logits: {'targets': labels(logits)})
  def objective(model, variables, batch, key, train):
    logits, mutable = apply(model, variables, batch, key, train)
    _check_weights(class_weights, logits.shape[-1])
    mask = batch.get('mask')
    targets = filled(batch['targets'], mask)
    if targets.shape != logits.shape[:-1]:  # which could broadcast
      raise ConfigError(f'targets: have shape {targets.shape}; must be {logits.shape[:-1]} for logits {logits.shape}')
    losses = cross_entropies(logits, targets, label_smoothing)
    metrics = {'accuracy': mean(is_largest(logits, targets).astype(logits.dtype), mask)}
    if top_k:
      check_count('top_k', top_k, at_most=logits.shape[-1])
      best = jax.lax.top_k(logits, top_k)[1]
      metrics[f'top_{top_k}'] = mean((best == targets[..., None]).any(-1).astype(logits.dtype), mask)
    return _weighted_mean(losses, targets, class_weights, mask), Aux(metrics, mutable)

  return objective


def binary_cross_entropy(label_smoothing: float = 0.0, class_weights: Sequence[float] = ()) -> Objective:
  """Sigmoid cross-entropy of logits with targets 0 or 1; reports `accuracy`.

  Logits are [batch, 1] with targets [batch], or both are [batch, labels]. `class_weights` are those of
  the targets 0 and 1; `label_smoothing` moves the targets by that fraction toward one half. Raises ConfigError as
  `softmax_cross_entropy` does.
  """
  _check_fields(label_smoothing, class_weights)

  @expecting(lambda logits: {'targets': Expected(logits.shape[1:], reshaped=True, at_least=0, at_most=1, whole=True)})
  def objective(model, variables, batch, key, train):
    logits, mutable = apply(model, variables, batch, key, train)
    _check_weights(class_weights, 2)
    mask = batch.get('mask')
    targets = filled(batch['targets'].reshape(logits.shape), mask)
    smooth = targets * (1 - label_smoothing) + label_smoothing / 2
    losses = optax.sigmoid_binary_cross_entropy(logits, smooth)
    metrics = {'accuracy': mean(((logits > 0) == (targets > 0)).astype(logits.dtype), mask)}
    return _weighted_mean(losses, targets.astype(jnp.int32), class_weights, mask), Aux(metrics, mutable)

  return objective


def _check_fields(label_smoothing: float, class_weights: Sequence[float]) -> None:
  check_range('label_smoothing', label_smoothing, below=1)
  for weight in class_weights:
    check_range('class_weights', weight)


def _check_weights(class_weights: Sequence[float], num_classes: int) -> None:
  """Without this check JAX would use the last weight for classes without one."""
  if len(class_weights) not in (0, num_classes):
    raise ConfigError(f'class_weights: has {len(class_weights)} entries; must be {num_classes}, one per class')


def cross_entropies(
  logits: Float[Array, 'batch *shape classes'],
  targets: Integer[ArrayLike, ' batch *shape'],
  label_smoothing: float = 0.0,
) -> Float[Array, ' batch *shape']:
  """Cross-entropy of each target, in nats; NaN for an invalid class.

  Avoids a one-hot array, which would be as large as the logits.
  """
  smooth = label_smoothing * logits.mean(-1) if label_smoothing else 0
  return jax.nn.logsumexp(logits, -1) - (1 - label_smoothing) * pick(logits, targets) - smooth


def _weighted_mean(
  losses: Float[Array, ' batch *shape'],
  targets: Integer[ArrayLike, ' batch *shape'],
  class_weights: Sequence[float],
  mask: Num[ArrayLike, ' batch ...'] | None,
) -> Mean:
  if not class_weights:
    return mean(losses, mask)
  weights = take(jnp.asarray(class_weights, losses.dtype), targets)
  return Mean(mean(losses * weights, mask).total, mean(weights, mask).total)
