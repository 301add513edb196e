"""Fields of models that every run sets, whatever the experiment."""

from typing import Any

from flax import linen as nn


def with_field(model: nn.Module, name: str, value: Any) -> nn.Module | None:
  """A copy of `model`, or of the model it wraps, with a field set; None if neither has the field."""
  if hasattr(model, name):
    return model.clone(**{name: value})
  wrapped = with_field(model.model, name, value) if hasattr(model, 'model') else None
  return model.clone(model=wrapped) if wrapped else None


def innermost(model: nn.Module) -> nn.Module:
  """`model`, or the innermost model that it wraps."""
  return innermost(model.model) if hasattr(model, 'model') else model
