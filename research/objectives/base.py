"""An objective: what is minimised and what is reported, as one pure function of a batch."""

from collections.abc import Callable, Mapping, Sequence

from jax import Array
from jaxtyping import Float

from research import random
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


def apply(
  model: Model,
  variables: PyTree,
  batch: Mapping[str, PyTree],
  key: Array,
  train: bool,
  streams: Sequence[str] = ('dropout',),
  moving: Sequence[str] = ('batch_stats', 'carry'),
) -> tuple[Float[Array, 'batch ...'], PyTree]:
  """Outputs of `model` for the inputs of a batch, and the collections that changed on the way.

  In training each of the random `streams` has a key of its own, derived from `key`, and the collections `moving`
  change: a VAE names the stream 'noise', a codebook its collection. In evaluation nothing is random or changes.
  """
  if not train:
    return model.apply(variables, batch['inputs'], train=False), {}
  rngs = {name: random.stream(key, name) for name in streams}
  return model.apply(variables, batch['inputs'], train=True, rngs=rngs, mutable=list(moving))
