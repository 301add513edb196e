"""Compiled, batched beam search for the most probable token sequence."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Bool, Float, Int

from research.errors import check_count, check_counts, check_range
from research.types import PyTree

# (carry, tokens [batch]) -> (carry, log-probabilities [batch, vocabulary], what to keep of the step [batch, ...])
Step = Callable[[PyTree, Array], tuple[PyTree, Array, Array]]


class Hypotheses(NamedTuple):
  """The best sequence found for each example."""

  tokens: Int[Array, 'batch length']  # without the start token; padded with eos_id
  scores: Float[Array, ' batch']  # total log-probability over the length penalty
  kept: Array  # [batch, length, ...]: what the model returned at each step; 0 past the end


class _Beams(NamedTuple):
  """State of the search: `beam_size` hypotheses per example, the most probable first."""

  step: Int[Array, '']
  carry: PyTree  # leaves [batch, beams, ...]
  tokens: Int[Array, 'batch beams']  # the last ones
  totals: Float[Array, 'batch beams']  # log-probabilities
  lengths: Int[Array, 'batch beams']  # with the end token
  ended: Bool[Array, 'batch beams']
  history: tuple[Array, Array, Array]  # of every step: tokens, parents and what was kept, each [length, batch, beams]


def beam_search(
  step: Step,
  carry: PyTree,
  limits: Int[Array, ' batch'],
  eos_id: int,
  max_length: int,
  beam_size: int = 1,
  length_penalty: float = 1.0,
) -> Hypotheses:
  """Extends the `beam_size` most probable hypotheses of each example by a token until all have ended.

  Finished hypotheses stay in the beam and compete with the others. The result is the finished hypothesis (any, if there
  is none) with the highest log-probability over ((5 + tokens) / 6)**length_penalty (Wu et al. 2016, equation 14). A
  beam of 1 is greedy search. Examples are independent of each other.

  Args:
    step: the model; every example starts with the token `eos_id`.
    carry: leaves [batch, ...], before the first step.
    limits: tokens after which an example stops, finished or not; at most `max_length`.
    eos_id: the token that starts and ends a sequence.
    max_length: length of the arrays; static.

  Raises ConfigError for a beam_size or max_length below 1, a negative length_penalty, and an eos_id out of range.
  """
  check_counts(beam_size=beam_size, max_length=max_length)
  check_range('length_penalty', length_penalty)
  first = _first(step, carry, limits.shape[0], eos_id, max_length, beam_size)
  extend = jax.vmap(step, in_axes=(1, 1), out_axes=1)
  last = lax.while_loop(lambda at: ~_over(at, limits).all(), lambda at: _next(extend, at, limits, eos_id), first)
  scores = last.totals / ((5 + last.lengths) / 6) ** length_penalty
  best = jnp.where(last.ended, scores, -jnp.inf).argmax(1)
  tokens, kept = _traced_back(last.history, best)
  return Hypotheses(tokens, jnp.take_along_axis(scores, best[:, None], 1)[:, 0], kept)


def _first(step: Step, carry: PyTree, batch: int, eos_id: int, max_length: int, beam_size: int) -> _Beams:
  carry = jax.tree.map(lambda leaf: jnp.repeat(leaf[:, None], beam_size, 1), carry)
  shape = (batch, beam_size)
  tokens = jnp.full(shape, eos_id, jnp.int32)
  _, log_probs, kept = jax.eval_shape(jax.vmap(step, in_axes=(1, 1), out_axes=1), carry, tokens)
  check_count('eos_id', eos_id, at_least=0, at_most=log_probs.shape[-1] - 1)
  totals = jnp.where(jnp.arange(beam_size)[None] == 0, 0.0, jnp.full(shape, -jnp.inf))  # all start equal: keep one
  parents = jnp.broadcast_to(jnp.arange(beam_size, dtype=jnp.int32), (max_length, *shape))
  history = (
    jnp.full((max_length, *shape), eos_id, jnp.int32),
    parents,
    jnp.zeros((max_length, *kept.shape), kept.dtype),
  )
  zero = jnp.zeros((), jnp.int32)
  return _Beams(zero, carry, tokens, totals, jnp.zeros(shape, jnp.int32), jnp.zeros(shape, bool), history)


def _over(at: _Beams, limits: Array) -> Bool[Array, 'batch beams']:
  return at.ended | (at.step >= limits)[:, None]


def _next(extend: Step, at: _Beams, limits: Array, eos_id: int) -> _Beams:
  """Extends all unfinished hypotheses by a token."""
  over = _over(at, limits)
  carry, log_probs, kept = extend(at.carry, at.tokens)
  vocab_size = log_probs.shape[-1]
  nothing = jnp.where(jnp.arange(vocab_size) == eos_id, 0.0, -jnp.inf)[None, None]
  totals = at.totals[..., None] + jnp.where(over[..., None], nothing, log_probs)
  totals, choice = lax.top_k(totals.reshape(len(limits), -1), at.tokens.shape[1])
  parents, tokens = choice // vocab_size, choice % vocab_size
  carry, kept, was_over, ended, lengths = jax.tree.map(
    lambda leaf: _of_parents(leaf, parents), (carry, kept, over, at.ended, at.lengths)
  )
  kept = jnp.where(jnp.expand_dims(was_over, range(2, kept.ndim)), 0, kept)
  history = jax.tree.map(lambda all, now: all.at[at.step].set(now), at.history, (tokens, parents, kept))
  ended = ended | (~was_over & (tokens == eos_id))
  return _Beams(at.step + 1, carry, tokens, totals, lengths + ~was_over, ended, history)


def _of_parents(leaf: Array, parents: Int[Array, 'batch beams']) -> Array:
  return jax.vmap(lambda rows, index: rows[index])(leaf, parents)


def _traced_back(history: tuple[Array, Array, Array], best: Int[Array, ' batch']) -> tuple[Array, Array]:
  """Tokens and kept outputs of the hypotheses `best`, traced from the last step to the first."""

  def step(beam, at):
    tokens, parents, kept = (_of_parents(leaf, beam[:, None]).squeeze(1) for leaf in at)
    return parents, (tokens, kept)

  _, (tokens, kept) = lax.scan(step, best.astype(jnp.int32), history, reverse=True)
  return tokens.swapaxes(0, 1), kept.swapaxes(0, 1)
