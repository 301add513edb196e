"""Activation functions by their usual names."""

from collections.abc import Callable

import jax
from jax import Array

from research.errors import check_choice

ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
  'identity': lambda x: x,
  'sigmoid': jax.nn.sigmoid,
  'tanh': jax.nn.tanh,
  'relu': jax.nn.relu,
  'leaky_relu': jax.nn.leaky_relu,  # slope 0.01
  'elu': jax.nn.elu,
  'selu': jax.nn.selu,
  'gelu': lambda x: jax.nn.gelu(x, approximate=False),
  'gelu_tanh': jax.nn.gelu,  # the approximation of GPT-2
  'silu': jax.nn.silu,
  'swish': jax.nn.silu,
  'softplus': jax.nn.softplus,
  'mish': jax.nn.mish,
  'softmax': jax.nn.softmax,  # over the last axis: at the head of a model
}


def activation(name: str) -> Callable[[Array], Array]:
  """The activation called `name`. Raises ConfigError for a name that is not in the table."""
  check_choice('activation', name, ACTIVATIONS)
  return ACTIVATIONS[name]
