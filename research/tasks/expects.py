"""What a model and an objective expect of a batch, found by tracing, without computing or compiling anything."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from research.errors import ConfigError, DataError
from research.expected import Expected
from research.types import Batch


def expected_by(
  model: nn.Module, objective: Callable | None, preprocess: Callable[[Batch], Batch], batch: Batch
) -> dict[str, Expected]:
  """What the arrays of `batch`, of any size, must contain, by name.

  Targets must satisfy the objective's `expects` given the model's outputs, and the inputs of embeddings must be tokens
  in range. Arrays that `preprocess` changes are not checked.

  Raises ConfigError for a model without the argument `train`, and DataError for a missing array or invalid tokens.
  """
  tokens, changed = {}, set()

  def outputs(batch: Batch) -> Any:
    try:
      seen = preprocess(batch)
      inputs = seen['inputs']
    except KeyError as error:
      names = ', '.join(name for name in batch if name != 'index')
      raise DataError(f'the examples have no array {error}, which the inputs need, only {names}') from error
    changed.update(name for name, array in seen.items() if batch.get(name) is not array)
    with nn.intercept_methods(_noting_tokens(batch, tokens)):
      return model.init_with_output(jax.random.key(0), inputs, train=False)[0]

  try:
    shapes = jax.eval_shape(outputs, batch)
  except TypeError as error:
    if "keyword argument 'train'" in str(error):
      name = type(model).__name__
      raise ConfigError(f'model: {name} takes no argument train; write __call__(self, inputs, train=False)') from error
    raise
  targets = getattr(objective, 'expects', lambda outputs: {})(shapes)
  return tokens | {name: needs for name, needs in targets.items() if not _read_with(name, needs) & changed}


def _noting_tokens(batch: Batch, tokens: dict[str, Expected]) -> Callable:
  """A Linen interceptor that records which arrays of the batch are read by embeddings, ours or Linen's."""
  names = {id(array): name for name, array in batch.items()}
  lengths = 'lengths' if 'lengths' in batch else ''

  def note(call: Callable, args: tuple, kwargs: dict, context: nn.module.InterceptorContext) -> Any:
    size = getattr(context.module, 'num_embeddings', 0)
    if size and context.method_name == '__call__':
      name = names.get(id(args[0]), '')
      if not jnp.issubdtype(args[0].dtype, jnp.integer):
        raise DataError(f'{name or "tokens"}: are {args[0].dtype}, which an embedding cannot read; must be integers')
      if name:
        why = f'the embedding has {size} vectors'
        tokens[name] = Expected(None, at_least=0, at_most=size - 1, integer=True, masks=(), lengths=lengths, why=why)
    return call(*args, **kwargs)

  return note


def _read_with(name: str, expected: Expected) -> set[str]:
  """The arrays needed to check `name`."""
  return {name, *expected.masks, expected.lengths}
