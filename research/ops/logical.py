"""Logical axis names of parameters, by which a mesh shards them (tensor parallelism)."""

from flax import linen as nn


def logical(init: nn.initializers.Initializer, *names: str | None) -> nn.initializers.Initializer:
  """An initializer that boxes its parameter with the `names` of its axes, but only within `nn.logical_axis_rules`.

  A layout asks a model for the names within such rules; everyone else gets plain arrays.
  """

  def initialize(*arguments, **keywords):
    named = nn.with_logical_partitioning(init, names) if nn.get_logical_axis_rules() else init
    return named(*arguments, **keywords)

  return initialize
