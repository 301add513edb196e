"""Preprocessing inside the step, so that small integers are transferred, not floats."""

import math
from collections.abc import Callable, Mapping

import jax.numpy as jnp
from jax import Array

from research.errors import check_range


def standardize(mean: float, std: float) -> Callable[[Mapping[str, Array]], dict[str, Array]]:
  """Function of a batch that standardizes its inputs: (inputs - mean) / std in float32.

  Raises ConfigError for a mean that is not finite, and for a std that is not above 0.
  """
  check_range('mean', mean, above=-math.inf)
  check_range('std', std, above=0)

  def preprocess(batch: Mapping[str, Array]) -> dict[str, Array]:
    inputs = batch['inputs'].astype(jnp.float32)
    return {**batch, 'inputs': (inputs - mean) / std}

  return preprocess
