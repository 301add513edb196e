"""What experiments on series of several lengths share."""

from collections.abc import Mapping

from jax import Array

from research.models.rnn import Padded


def padded(batch: Mapping[str, Array]) -> Mapping[str, Array | Padded]:
  """The batch with inputs that know their `lengths`, where it has any."""
  return {**batch, 'inputs': Padded(batch['inputs'], batch['lengths'])} if 'lengths' in batch else batch
