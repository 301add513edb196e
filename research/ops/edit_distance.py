"""Batched edit distance of padded sequences."""

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Int


@jax.jit
def edit_distance(
  labels: Int[Array, 'batch length'],
  lengths: Int[Array, ' batch'],
  predictions: Int[Array, 'batch guessed'],
  prediction_lengths: Int[Array, ' batch'],
) -> Int[Array, ' batch']:
  """Minimum number of insertions, deletions and substitutions from `predictions` to `labels` (Levenshtein 1966).

  Scans over the rows of the Wagner-Fischer table, one per label; within a row, d[j] = min(d[j], d[j - 1] + 1) for all j
  is a running minimum of d[j] - j.
  """
  places = jnp.arange(predictions.shape[1] + 1, dtype=jnp.int32)[None]

  def row(above: Array, column: tuple[Array, Array]) -> tuple[Array, None]:
    label, number = column
    replaced = above[:, :-1] + (predictions != label[:, None])
    best = jnp.minimum(above + 1, jnp.pad(replaced, ((0, 0), (1, 0)), constant_values=jnp.iinfo(jnp.int32).max))
    new = jax.lax.cummin(best - places, axis=1) + places
    return jnp.where((number < lengths)[:, None], new, above), None

  first = jnp.broadcast_to(places, (len(predictions), places.shape[1]))
  last, _ = jax.lax.scan(row, first, (labels.T, jnp.arange(labels.shape[1])))
  return jnp.take_along_axis(last, prediction_lengths[:, None], axis=1).squeeze(1)
