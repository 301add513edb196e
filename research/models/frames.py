"""Sequences read several steps at a time."""

import jax.numpy as jnp
from flax import linen as nn
from jax import Array
from jaxtyping import Float, Num

from research.errors import check_counts
from research.models.rnn import Padded, unpadded
from research.ops.padding import valid


class Frames(nn.Module):
  """A sequence model that reads `size` steps at a time, so a recurrent network takes that many times fewer steps.

  The last frame is zero-padded. Raises ConfigError for a size below 1.
  """

  model: nn.Module
  size: int

  def __post_init__(self):
    check_counts(size=self.size)
    super().__post_init__()

  def __call__(self, inputs: Num[Array, 'batch length features'] | Padded, train: bool = False) -> Float[Array, '...']:
    values, lengths = unpadded(inputs)
    if lengths is None:
      return self.model(framed(values, self.size), train)
    values = jnp.where(valid(lengths, values.shape[1])[..., None], values, 0)
    return self.model(Padded(framed(values, self.size), -(-lengths // self.size)), train)


def framed(values: Num[Array, 'batch length features'], size: int) -> Num[Array, 'batch frames width']:
  """Consecutive frames of `size` steps, each concatenated into one vector."""
  batch, length, features = values.shape
  filled = jnp.pad(values, ((0, 0), (0, -length % size), (0, 0)))
  return filled.reshape(batch, -1, size * features)
