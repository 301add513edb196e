"""Next-token prediction."""

import math
from collections.abc import Mapping

import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Float

from research.errors import ConfigError
from research.expected import Expected, labels
from research.metrics import Mean, filled, mean, spread
from research.objectives.base import apply, expecting
from research.objectives.classification import cross_entropies
from research.ops.gather import is_largest, take
from research.types import Aux, Objective, PyTree


def next_token(characters: np.ndarray | None = None) -> Objective:
  """Cross-entropy, in nats per token, of logits [batch, length, vocabulary] with integer targets [batch, length].

  Targets are weighted by the batch's `weights` [batch, length], if any, and its `mask` [batch] or [batch, length].
  Reports `accuracy`, `bits_per_token` and, given the number of `characters` of each token [vocabulary],
  `bits_per_character`: total bits over total characters, independent of the tokenizer. Raises ConfigError unless
  `characters` covers every token.
  """

  def expects(logits):
    weights = Expected(logits.shape[1:-1], at_least=0, optional=True, why='how much a target counts')
    return {'weights': weights, 'targets': labels(logits, masks=('mask', 'weights'))}

  @expecting(expects)
  def objective(model, variables, batch, key, train):
    logits, mutable = apply(model, variables, batch, key, train)
    weights = target_weights(batch)
    targets = filled(batch['targets'], weights)
    loss = _weighted(cross_entropies(logits, targets), weights)
    bits = loss.total / math.log(2)
    right = is_largest(logits, targets).astype(logits.dtype)
    metrics = {'accuracy': _weighted(right, weights), 'bits_per_token': Mean(bits, loss.count)}
    if characters is not None:
      if len(characters) != logits.shape[-1]:
        raise ConfigError(f'characters: has {len(characters)} entries; must be {logits.shape[-1]}, one per token')
      length = _weighted(take(jnp.asarray(characters, jnp.float32), targets), weights).total
      metrics['bits_per_character'] = Mean(bits, length)
    return loss, Aux(metrics, mutable)

  return objective


def target_weights(batch: Mapping[str, PyTree]) -> Float[Array, 'batch length']:
  """The weight of each target."""
  weights = jnp.asarray(batch.get('weights', jnp.ones(batch['targets'].shape)))
  return weights * spread(batch['mask'], weights) if 'mask' in batch else weights


def _weighted(values: Float[Array, 'batch length'], weights: Float[ArrayLike, 'batch length']) -> Mean:
  """Weighted mean of `values`."""
  return Mean(mean(jnp.where(weights > 0, values * weights, 0)).total, mean(weights).total)
