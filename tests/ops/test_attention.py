"""Attention against its formula in numpy, where some queries may look at nothing."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research.ops.attention import attention

LENGTH, KEYS = 3, 5
MASK = np.random.default_rng(0).random((2, 2, LENGTH, KEYS)) < 0.6
MASK[0, :, 1] = False
MASKS = {'none': None, 'each': MASK, 'shared': MASK[:1, :1], 'padding': MASK[:, :1, :1]}


def given():
  rng = np.random.default_rng(1)
  return tuple(jnp.asarray(rng.normal(size=(2, length, 2, 4))) for length in (LENGTH, KEYS, KEYS))


def formula(queries, keys, values, seen):
  """Weighted means, query by query."""
  outputs = np.zeros(queries.shape)
  for example, query, head in np.ndindex(outputs.shape[:-1]):
    chosen = seen[example, head, query]
    scores = keys[example, chosen, head] @ queries[example, query, head] / 2
    weights = np.exp(scores) / np.exp(scores).sum()
    outputs[example, query, head] = weights @ values[example, chosen, head]
  return outputs


def differentiable_formula(queries, keys, values, seen):
  """The same at once, for gradients; something is seen by every query."""
  scores = jnp.einsum('bqhd,bkhd->bhqk', queries, keys) / 2
  weights = jnp.exp(scores) * seen
  return jnp.einsum('bhqk,bkhd->bqhd', weights / weights.sum(-1, keepdims=True), values)


@pytest.mark.parametrize('causal', [False, True])
@pytest.mark.parametrize('mask', MASKS)
def test_it_is_the_formula(mask, causal, x64):
  seen = np.ones((2, 2, LENGTH, KEYS), bool) if mask == 'none' else np.broadcast_to(MASKS[mask], (2, 2, LENGTH, KEYS))
  seen = np.tril(seen) if causal else seen
  outputs = attention(*given(), None if mask == 'none' else jnp.asarray(MASKS[mask]), causal)
  np.testing.assert_allclose(outputs, formula(*map(np.asarray, given()), seen), rtol=1e-9, atol=1e-12)


def test_its_gradient_is_that_of_the_formula(x64):
  """A query that sees one key alone has a weight that moves with nothing."""
  seen = np.tril(np.ones((1, 1, LENGTH, KEYS), bool))
  ways = partial(attention, causal=True), partial(differentiable_formula, seen=seen)
  ours, expected = (jax.grad(lambda *x, way=way: jnp.sin(way(*x)).sum(), (0, 1, 2))(*given()) for way in ways)
  jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-9, atol=1e-12), ours, expected)


def test_a_query_that_may_look_at_nothing_has_no_gradient():
  gradients = jax.grad(lambda *x: attention(*x, jnp.asarray(MASK))[0, 1].sum(), (0, 1, 2))(*given())
  assert not any(gradient.any() for gradient in gradients)
