"""Types shared by all packages."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from jax import Array

from research.metrics import Mean, Metrics

PyTree = Any
Batch = Mapping[str, Array]
Rows = Mapping[str, np.ndarray]  # a batch on the host
Fitted = Mapping[str, Any]  # what was fitted on training data: strings, numbers, lists and arrays, by name


class Aux(NamedTuple):
  """What an objective returns besides its loss."""

  metrics: Metrics
  mutable: PyTree  # Linen collections changed by the forward pass; empty in evaluation


@runtime_checkable
class Model(Protocol):
  """A Linen module, or one applied in another precision."""

  def apply(self, variables: PyTree, *args: Any, **options: Any) -> Any: ...


# (model, variables, batch, key, train) -> (loss, aux)
Objective = Callable[[Model, PyTree, Mapping[str, PyTree], Array, bool], tuple[Mean, Aux]]
