"""Next-token prediction: how many bits a text costs under a language model."""

import math
from collections.abc import Mapping

import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Float

from research.errors import ConfigError
from research.metrics import Mean, mean
from research.objectives.base import Aux, Objective, PyTree, apply


def next_token(characters: np.ndarray | None = None) -> Objective:
  """Cross-entropy in nats a token of logits [batch, length, vocabulary] with integer targets [batch, length].

  Targets count by `weights` [batch, length] where the batch has them, and by its `mask` [batch]. Reports `accuracy`,
  `bits_per_token` and, of tokens that stand for so many `characters` [vocabulary], `bits_per_character`: all bits
  over all characters, which does not depend on the tokens. Raises ConfigError unless `characters` has each token.
  """

  def objective(model, variables, batch, key, train):
    logits, mutable = apply(model, variables, batch, key, train)
    targets, weights = batch['targets'], target_weights(batch)
    loss = _weighted(token_losses(logits, targets), weights)
    bits = loss.total / math.log(2)
    right = (logits.argmax(-1) == targets).astype(logits.dtype)
    metrics = {'accuracy': _weighted(right, weights), 'bits_per_token': Mean(bits, loss.count)}
    if characters is not None:
      if len(characters) != logits.shape[-1]:  # JAX would take the last one for every token beyond
        raise ConfigError(f'characters: there are {len(characters)}, for {logits.shape[-1]} tokens')
      length = _weighted(jnp.asarray(characters)[targets], weights).total
      metrics['bits_per_character'] = Mean(bits, length)
    return loss, Aux(metrics, mutable)

  return objective


def token_losses(logits: Float[Array, 'batch length vocabulary'], targets: ArrayLike) -> Float[Array, 'batch length']:
  """Nats that each target costs."""
  return optax.softmax_cross_entropy_with_integer_labels(logits, targets)


def target_weights(batch: Mapping[str, PyTree]) -> Float[Array, 'batch length']:
  """How much each target counts."""
  weights = jnp.asarray(batch.get('weights', jnp.ones(batch['targets'].shape)))
  return weights * batch['mask'][:, None] if 'mask' in batch else weights


def _weighted(values: Float[Array, 'batch length'], weights: Float[ArrayLike, 'batch length']) -> Mean:
  """Mean of `values`, each as often as its weight says."""
  return Mean(mean(jnp.where(weights > 0, values * weights, 0)).total, mean(weights).total)
