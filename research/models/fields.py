"""Fields of models that a run sets, whatever the experiment."""

from typing import Any

from flax import linen as nn


def with_field(model: nn.Module, name: str, value: Any) -> nn.Module | None:
  """`model`, or the model that it wraps as its field `model`, with another value of a field; None if neither has it."""
  if hasattr(model, name):
    return model.clone(**{name: value})
  wrapped = with_field(model.model, name, value) if hasattr(model, 'model') else None
  return model.clone(model=wrapped) if wrapped else None


def innermost(model: nn.Module) -> nn.Module:
  """`model`, or the one that it wraps."""
  return innermost(model.model) if hasattr(model, 'model') else model
