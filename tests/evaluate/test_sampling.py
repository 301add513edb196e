"""Draws against the distribution that they are made of, and a carry that counts what was read."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import chisquare

from research.errors import ConfigError
from research.evaluate import sampling


def alternating(variables, tokens, carry):
  """Logits that depend on the last token alone; the carry counts the tokens that were read."""
  return variables[tokens], carry + tokens.shape[1]


def test_tokens_are_drawn_as_the_logits_say():
  table = jnp.log(jnp.array([[0.5, 0.3, 0.2], [0.1, 0.1, 0.8], [0.4, 0.4, 0.2]]))
  for temperature in (1.0, 0.5):
    given = (alternating, table, jnp.zeros(()), np.array([0]), 6000, temperature, jax.random.key(0))
    drawn = np.concatenate([[0], sampling.continued(*given)])
    expected = np.exp(np.asarray(table, float)) ** (1 / temperature)
    expected /= expected.sum(1, keepdims=True)
    for token in range(3):
      after = np.bincount(drawn[1:][drawn[:-1] == token], minlength=3)
      assert chisquare(after, after.sum() * expected[token]).pvalue > 1e-3
  likeliest = sampling.continued(alternating, table, jnp.zeros(()), np.array([2, 0]), 4, 0.0, jax.random.key(0))
  assert likeliest.tolist() == [0, 0, 0, 0]


def counting(variables, tokens, carry):
  """The likeliest token is how many were read, modulo 5."""
  read = carry + 1 + jnp.arange(tokens.shape[1])[None]
  return jax.nn.one_hot(read % 5, 5), read[:, -1:]


def test_the_likeliest_tokens_follow_the_prompt_one_by_one(caplog, monkeypatch):
  monkeypatch.setattr(sampling, 'time', SimpleNamespace(monotonic=iter([10.0, 14.0]).__next__))
  caplog.set_level('INFO')
  drawn = sampling.continued(counting, {}, jnp.zeros((1, 1), int), np.array([4, 4, 4]), 6, 0.0, jax.random.key(0))
  assert drawn.tolist() == [3, 4, 0, 1, 2, 3] and drawn.dtype == np.int32
  assert caplog.messages[-1] == '6 tokens in 4.00 s: 2 tokens/s'


def test_every_token_has_a_key_of_its_own():
  even = lambda variables, tokens, carry: (jnp.zeros((*tokens.shape, 7)), carry)  # noqa: E731
  drawn = sampling.continued(even, {}, (), np.array([0]), 30, 1.0, jax.random.key(2))
  keys = (jax.random.fold_in(jax.random.key(2), number) for number in range(30))
  assert drawn.tolist() == [int(jax.random.categorical(key, jnp.zeros((1, 7)))[0]) for key in keys]


@pytest.mark.parametrize(('length', 'temperature', 'message'), [(0, 1.0, 'length=0'), (3, -1.0, 'temperature=-1.0')])
def test_numbers_out_of_range_are_refused(length, temperature, message):
  with pytest.raises(ConfigError, match=message):
    sampling.continued(counting, {}, jnp.zeros((1, 1), int), np.array([4]), length, temperature, jax.random.key(0))
