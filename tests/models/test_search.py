"""Beam search against all sequences that there are, and what one beam is."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research.errors import ConfigError
from research.models.search import beam_search

VOCABULARY, END, LENGTH, BATCH = 4, 0, 5, 3
LIMITS = jnp.array([5, 3, 4])
# The next token's log-probabilities, by example, by the sum of all tokens so far (modulo 5) and by the last one.
TABLE = jax.nn.log_softmax(2 * jax.random.normal(jax.random.key(3), (BATCH, 5, VOCABULARY, VOCABULARY)))


def step(carry, tokens):
  number, total = carry
  total = (total + tokens) % 5
  log_probs = TABLE[number, total, tokens]
  return (number, total), log_probs, jnp.stack([number, total], -1).astype(jnp.float32)


def search(beam_size, length_penalty=1.0, examples=range(BATCH), end=END):
  examples = jnp.array(examples)
  carry = (examples, jnp.zeros_like(examples))
  return jax.jit(lambda: beam_search(step, carry, LIMITS[examples], end, LENGTH, beam_size, length_penalty))()


def log_probability(example, tokens):
  total, last, log_prob = 0, END, 0.0
  for token in tokens:
    total = (total + last) % 5
    log_prob += float(TABLE[example, total, last, token])
    last = token
  return log_prob


def all_sequences(limit):
  """Every sequence that ends with its first END within `limit` tokens."""
  for length in range(limit):
    for body in itertools.product(range(1, VOCABULARY), repeat=length):
      yield (*body, END)


@pytest.mark.parametrize('length_penalty', [0.0, 1.0, 2.0])
def test_with_beams_for_all_it_finds_the_best_of_all_sequences(length_penalty):
  found = search(beam_size=400, length_penalty=length_penalty)
  for example in range(BATCH):
    score = {
      tokens: log_probability(example, tokens) / ((5 + len(tokens)) / 6) ** length_penalty
      for tokens in all_sequences(int(LIMITS[example]))
    }
    best = max(score, key=score.get)
    np.testing.assert_array_equal(found.tokens[example], (*best, *[END] * (LENGTH - len(best))))
    np.testing.assert_allclose(found.scores[example], score[best], rtol=1e-5)


def test_one_beam_takes_the_likeliest_token_at_every_step():
  found = search(beam_size=1)
  for example in range(BATCH):
    total, last, tokens = 0, END, []
    while len(tokens) < LIMITS[example]:
      total = (total + last) % 5
      last = int(TABLE[example, total, last].argmax())
      tokens.append(last)
      if last == END:
        break
    np.testing.assert_array_equal(found.tokens[example], tokens + [END] * (LENGTH - len(tokens)))


@pytest.mark.parametrize('beam_size', [1, 2, 3])
def test_what_is_kept_belongs_to_the_hypothesis_that_won(beam_size):
  found = search(beam_size)
  for example in range(BATCH):
    tokens = [END, *map(int, found.tokens[example])]
    ended = min((*tokens, END).index(END, 1), int(LIMITS[example]))
    totals = np.cumsum(tokens[:-1]) % 5
    expected = [(example, total) if number < ended else (0, 0) for number, total in enumerate(totals)]
    np.testing.assert_array_equal(found.kept[example], expected)


def test_no_example_depends_on_the_others():
  together = search(beam_size=3)
  for example in range(BATCH):
    for one, many in zip(search(3, examples=[example]), together, strict=True):
      np.testing.assert_allclose(one[0], many[example], rtol=1e-6)


def test_beams_and_penalty_out_of_range():
  with pytest.raises(ConfigError, match='beam_size=0'):
    search(beam_size=0)
  with pytest.raises(ConfigError, match='length_penalty=-1.0'):
    search(beam_size=1, length_penalty=-1.0)
  with pytest.raises(ConfigError, match=f'eos_id={VOCABULARY}: must be a whole number from 0 to {VOCABULARY - 1}'):
    search(beam_size=1, end=VOCABULARY)
