"""An objective: what is minimised and what is reported, as one pure function of a batch."""

from collections.abc import Callable, Mapping

from jax import Array
from jaxtyping import Float

from research.expected import Expected
from research.types import Model, Objective, PyTree


def expecting(expects: Callable[[PyTree], Mapping[str, Expected]]) -> Callable[[Objective], Objective]:
  """Marks an objective with what it expects of a batch: `expects(outputs)`, of the shapes of the model's outputs.

  The examples are checked for it before anything is compiled.
  """

  def mark(objective: Objective) -> Objective:
    objective.expects = expects
    return objective

  return mark


def couples_examples(objective: Objective) -> Objective:
  """Marks an objective whose loss of one example depends on the others of its batch, such as a contrastive one.

  Where each device sees a part of the batch alone (pmap), a task refuses it.
  """
  objective.couples_examples = True
  return objective


def carries_state(objective: Objective) -> Objective:
  """Marks an objective of a model that goes on from what it left in the batch before, row by row.

  A task refuses to take the rows of a batch apart (micro-batches, pmap).
  """
  objective.carries_state = True
  return objective


def apply(
  model: Model, variables: PyTree, batch: Mapping[str, PyTree], key: Array, train: bool
) -> tuple[Float[Array, 'batch ...'], PyTree]:
  """Outputs of `model` for the inputs of a batch, and the collections that changed on the way.

  In training dropout draws from `key`, batch statistics and carries move; in evaluation nothing is random or changes.
  """
  if not train:
    return model.apply(variables, batch['inputs'], train=False), {}
  return model.apply(variables, batch['inputs'], train=True, rngs={'dropout': key}, mutable=['batch_stats', 'carry'])
