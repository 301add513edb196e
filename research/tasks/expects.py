"""What a model and an objective expect of a batch, found by tracing: nothing is computed or compiled."""

from collections.abc import Callable
from typing import Any

import jax
from flax import linen as nn

from research.errors import ConfigError
from research.expected import Expected
from research.tasks.base import Batch


def expected_by(
  model: nn.Module, objective: Callable, preprocess: Callable[[Batch], Batch], batch: Batch
) -> dict[str, Expected]:
  """What the arrays of `batch`, of however many examples, must hold, by name.

  Targets and the like must be what the mark `expects` of the objective says of the model's outputs, and what an
  embedding reads must be tokens that it has. Nothing is known of arrays that `preprocess` changes.

  Raises ConfigError for a model that takes no `train`.
  """
  tokens, unchanged = {}, set()

  def outputs(batch: Batch) -> Any:
    seen = preprocess(batch)
    unchanged.update(name for name, array in batch.items() if seen.get(name) is array)
    with nn.intercept_methods(_noting_tokens(batch, tokens)):
      return model.init_with_output(jax.random.key(0), seen['inputs'], train=False)[0]

  try:
    shapes = jax.eval_shape(outputs, batch)
  except TypeError as error:
    if "keyword argument 'train'" in str(error):
      name = type(model).__name__
      raise ConfigError(f'model: {name} takes no argument train; write __call__(self, inputs, train=False)') from error
    raise
  targets = getattr(objective, 'expects', lambda outputs: {})(shapes)
  known = {name: needs for name, needs in targets.items() if _read_with(name, needs) & batch.keys() <= unchanged}
  return tokens | known


def _noting_tokens(batch: Batch, tokens: dict[str, Expected]) -> Callable:
  """Interceptor of Linen that notes which arrays of the batch embeddings read, ours or Linen's own."""
  names = {id(array): name for name, array in batch.items()}

  def note(call: Callable, args: tuple, kwargs: dict, context: nn.module.InterceptorContext) -> Any:
    size = getattr(context.module, 'num_embeddings', 0)
    if size and context.method_name == '__call__' and (name := names.get(id(args[0]))):
      why = f'the embedding has {size} vectors'
      tokens[name] = Expected(None, least=0, most=size - 1, integer=True, masks=(), lengths='lengths', why=why)
    return call(*args, **kwargs)

  return note


def _read_with(name: str, expected: Expected) -> set[str]:
  """The arrays that say whether `name` is right."""
  return {name, *expected.masks, expected.lengths}
