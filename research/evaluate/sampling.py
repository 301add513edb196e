"""Autoregressive sampling from a language model."""

import time
from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging
from jax import Array
from jaxtyping import Float, Int, Key

from research.errors import check_counts, check_range
from research.types import PyTree

# (variables, tokens [batch, length], carry) -> (logits [batch, length, vocabulary], carry)
Advance = Callable[[PyTree, Array, PyTree], tuple[Array, PyTree]]


def continued(
  advance: Advance, variables: PyTree, carry: PyTree, prompt: np.ndarray, length: int, temperature: float, key: Array
) -> np.ndarray:
  """Samples `length` tokens after `prompt`, int32 [prompt length, at least 1], and logs the tokens per second.

  `carry` is the initial carry for a batch of one. Raises ConfigError for a length below 1 and a negative temperature.
  """
  check_counts(length=length)
  check_range('temperature', temperature)
  draw = jax.jit(partial(sample, advance, length=length))
  given = (variables, carry, jnp.asarray(prompt)[None], jnp.float32(temperature), key)
  compiled = draw.lower(*given).compile()  # ahead of time, so that only sampling is timed
  began = time.monotonic()
  tokens = np.asarray(compiled(*given))[0]
  seconds = time.monotonic() - began
  logging.info('%d tokens in %.2f s: %.0f tokens/s', length, seconds, length / seconds)
  return tokens


def sample(
  advance: Advance,
  variables: PyTree,
  carry: PyTree,
  prompt: Int[Array, 'batch prompt'],
  temperature: Float[Array, ''],
  key: Key[Array, ''],
  length: int,
) -> Int[Array, 'batch length']:
  """Tokens after `prompt`, each drawn from softmax(logits / temperature); temperature 0 is greedy.

  The prompt is read in one call, then each sampled token, carrying the state.
  """
  logits, carry = advance(variables, prompt, carry)

  def step(state: tuple[PyTree, Array], number: Array) -> tuple[tuple[PyTree, Array], Array]:
    carry, logits = state
    token = _draw(logits, temperature, jax.random.fold_in(key, number))
    logits, carry = advance(variables, token[:, None], carry)
    return (carry, logits.squeeze(1)), token

  _, tokens = jax.lax.scan(step, (carry, logits[:, -1]), jnp.arange(length))
  return tokens.T


def _draw(
  logits: Float[Array, 'batch vocabulary'], temperature: Float[Array, ''], key: Key[Array, '']
) -> Int[Array, ' batch']:
  noise = jax.random.gumbel(key, logits.shape, logits.dtype)  # the Gumbel-max trick
  return (logits + temperature * noise).argmax(-1).astype(jnp.int32)
