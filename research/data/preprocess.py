"""Preprocessing inside the step, so that small integers are transferred, not floats."""

import math
from collections.abc import Callable, Mapping

import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from research.errors import check_range


def standardize(mean: ArrayLike, std: ArrayLike) -> Callable[[Mapping[str, Array]], dict[str, Array]]:
  """Function of a batch that standardizes its inputs: (inputs - mean) / std in float32.

  Each is a number, or one per feature (the last axis of the inputs). Raises ConfigError for a mean that is not finite,
  and for a std that is not above 0.
  """
  mean, std = np.asarray(mean, np.float32), np.asarray(std, np.float32)
  for value in mean.flat:
    check_range('mean', value, above=-math.inf)
  for value in std.flat:
    check_range('std', value, above=0)

  def preprocess(batch: Mapping[str, Array]) -> dict[str, Array]:
    inputs = batch['inputs'].astype(jnp.float32)
    new_axes = tuple(range(inputs.ndim - mean.ndim))
    return {**batch, 'inputs': (inputs - np.expand_dims(mean, new_axes)) / np.expand_dims(std, new_axes)}

  return preprocess
