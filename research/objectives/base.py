"""An objective computes the loss and its metrics, as one pure function of a batch."""

from collections.abc import Callable, Mapping, Sequence

from jax import Array
from jaxtyping import Float

from research import random
from research.expected import Expected
from research.types import Model, Objective, PyTree


def expecting(expects: Callable[[PyTree], Mapping[str, Expected]]) -> Callable[[Objective], Objective]:
  """Marks an objective with what it expects of a batch, `expects(outputs)`, given the shapes of the model's outputs.

  Examples are checked before anything is compiled.
  """

  def mark(objective: Objective) -> Objective:
    objective.expects = expects
    return objective

  return mark


def couples_examples(objective: Objective) -> Objective:
  """Marks an objective in which the loss of an example depends on others in the batch, such as a contrastive one.

  Tasks refuse it where each device sees only its shard of the batch (pmap).
  """
  objective.couples_examples = True
  return objective


def apply(
  model: Model,
  variables: PyTree,
  batch: Mapping[str, PyTree],
  key: Array,
  train: bool,
  streams: Sequence[str] = ('dropout',),
  moving: Sequence[str] = ('batch_stats', 'carry'),
) -> tuple[Float[Array, 'batch ...'], PyTree]:
  """Outputs of `model` for the inputs of a batch, and the updated collections.

  In training each of the random `streams` has a key of its own, derived from `key`, and the collections `moving`
  change: a VAE names the stream 'noise', a codebook its collection. In evaluation nothing is random or changes.
  """
  if not train:
    return model.apply(variables, batch['inputs'], train=False), {}
  rngs = {name: random.stream(key, name) for name in streams}
  return model.apply(variables, batch['inputs'], train=True, rngs=rngs, mutable=list(moving))
