"""From stored examples to what a model sees, inside the step: small integers travel, floats do not."""

from collections.abc import Callable, Mapping

import jax.numpy as jnp
from jax import Array


def standardize(mean: float, deviation: float) -> Callable[[Mapping[str, Array]], dict[str, Array]]:
  """Function of a batch that makes floats of its inputs: less `mean`, over `deviation`, both in stored units."""

  def preprocess(batch: Mapping[str, Array]) -> dict[str, Array]:
    inputs = batch['inputs'].astype(jnp.float32)
    return {**batch, 'inputs': (inputs - mean) / deviation}

  return preprocess
