"""Names for the axes of parameters, by which a mesh splits them (tensor parallelism)."""

from flax import linen as nn


def logical(init: nn.initializers.Initializer, *names: str | None) -> nn.initializers.Initializer:
  """An initializer whose parameter is boxed with its axes' `names`, only where Linen has rules for such names.

  So a layout can ask a model for them within `nn.logical_axis_rules`, and everybody else sees plain arrays.
  """

  def initialize(*arguments, **keywords):
    named = nn.with_logical_partitioning(init, names) if nn.get_logical_axis_rules() else init
    return named(*arguments, **keywords)

  return initialize
