"""Shared by experiments on variable-length series."""

from collections.abc import Mapping

from jax import Array

from research.models.rnn import Padded


def padded(batch: Mapping[str, Array]) -> Mapping[str, Array | Padded]:
  """The batch with `Padded` inputs, if it has `lengths`."""
  return {**batch, 'inputs': Padded(batch['inputs'], batch['lengths'])} if 'lengths' in batch else batch
