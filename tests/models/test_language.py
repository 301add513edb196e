"""The recurrent language model: causal, the same in pieces as whole, and untouched by an evaluation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research.errors import ConfigError
from research.models.language import LanguageModel, Stream
from research.models.rnn import RNN
from research.tasks.precision import computing_in

RANDOM = np.random.default_rng(0)
TOKENS = jnp.asarray(RANDOM.integers(0, 7, (3, 12)), jnp.int32)
GO_ON, ANEW = jnp.zeros(3, bool), jnp.ones(3, bool)


def build(**options):
  model = LanguageModel(7, RNN(8, 2, options.pop('cell', 'lstm')), 5, **options)
  return model, model.init(jax.random.key(0), Stream(TOKENS[:, :4], GO_ON))


def in_pieces(model, variables, resets=(GO_ON,) * 3):
  """Logits of training windows of four tokens, and the variables after the last."""
  pieces = []
  for number, reset in enumerate(resets):
    stream = Stream(TOKENS[:, 4 * number : 4 * number + 4], reset)
    logits, changed = model.apply(variables, stream, train=True, mutable=['carry'])
    variables = {**variables, **changed}
    pieces.append(logits)
  return jnp.concatenate(pieces, 1), variables


@pytest.mark.parametrize('options', [{}, {'tie_embeddings': True}, {'cell': 'gru'}, {'cell': 'layer_norm_lstm'}])
def test_a_text_in_pieces_has_the_logits_of_the_whole(options):
  model, variables = build(**options)
  pieces, after = in_pieces(model, variables)
  np.testing.assert_allclose(pieces, model.apply(variables, TOKENS), atol=1e-6)
  logits, carry = model.apply(variables, TOKENS, model.rnn.initial_carry(3), method='advance')
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), after['carry']['rnn'], carry)
  assert {leaf.shape for leaf in jax.tree.leaves(after['carry'])} == {(3, 8)}


def test_a_row_begins_anew_where_it_is_told_to():
  model, variables = build()
  some = jnp.array([True, False, True])
  pieces, _ = in_pieces(model, variables, (ANEW, GO_ON, some))
  anew, whole = model.apply(variables, TOKENS[:, 8:]), model.apply(variables, TOKENS)[:, 8:]
  np.testing.assert_allclose(pieces[:, 8:], jnp.where(some[:, None, None], anew, whole), atol=1e-6)
  assert not np.allclose(anew[0], whole[0], atol=1e-3)


def test_a_run_begins_with_zeros_and_an_evaluation_neither_reads_nor_moves_the_carry():
  model, variables = build()
  assert not any(np.asarray(leaf).any() for leaf in jax.tree.leaves(variables['carry']))
  _, after = in_pieces(model, variables)
  for inputs in (TOKENS, TOKENS[:2], Stream(TOKENS[:2], GO_ON[:2])):
    logits, changed = model.apply(after, inputs, train=False, mutable=['carry'])
    tokens = inputs.tokens if isinstance(inputs, Stream) else inputs
    np.testing.assert_array_equal(logits, model.apply(variables, tokens))
    jax.tree.map(np.testing.assert_array_equal, changed['carry'], after['carry'])


def test_no_logit_depends_on_a_later_token():
  model, variables = build()
  logits = jax.jit(lambda tokens: model.apply(variables, tokens))
  for place in range(12):
    other = TOKENS.at[:, place].set((TOKENS[:, place] + 1) % 7)
    moved = np.asarray(logits(other) != logits(TOKENS)).any((0, 2))
    assert not moved[:place].any() and moved[place:].all()


def test_dropout_acts_in_training_alone():
  model, variables = build(dropout_rate=0.5)
  draws = [
    model.apply(variables, Stream(TOKENS, GO_ON), train=True, rngs={'dropout': jax.random.key(n)}, mutable=['carry'])[0]
    for n in (0, 0, 1)
  ]
  np.testing.assert_array_equal(draws[0], draws[1])
  assert not np.allclose(draws[0], draws[2])
  np.testing.assert_array_equal(model.apply(variables, TOKENS), LanguageModel(7, model.rnn, 5).apply(variables, TOKENS))


@pytest.mark.parametrize(
  'options, name', [({'dropout_rate': 1.0}, 'dropout_rate=1.0'), ({'embed_dim': 0}, 'embed_dim=0')]
)
def test_what_cannot_be_is_refused(options, name):
  with pytest.raises(ConfigError, match=name):
    LanguageModel(**{'vocab_size': 7, 'rnn': RNN(8), 'embed_dim': 5, **options}).init(jax.random.key(0), TOKENS)


@pytest.mark.parametrize('tie_embeddings', [False, True])
def test_dropout_is_before_and_after_the_recurrent_network(tie_embeddings):
  model, variables = build(dropout_rate=0.5, tie_embeddings=tie_embeddings)
  seen = model.apply(
    variables, TOKENS, True, rngs={'dropout': jax.random.key(1)}, capture_intermediates=True, mutable=['intermediates']
  )[1]['intermediates']
  for number in range(2):
    dropped = np.asarray(seen[f'Dropout_{number}']['__call__'][0]) == 0
    assert 0.3 < dropped.mean() < 0.7


def test_a_tied_head_has_no_vectors_of_its_own():
  count = {
    tie_embeddings: sum(leaf.size for leaf in jax.tree.leaves(build(tie_embeddings=tie_embeddings)[1]['params']))
    for tie_embeddings in (False, True)
  }
  rnn = 4 * 8 * (5 + 8 + 1) + 4 * 8 * (8 + 8 + 1)
  assert count == {False: 7 * 5 + rnn + 8 * 7 + 7, True: 7 * 5 + rnn + 8 * 5 + 5}


def test_the_carry_stays_in_float32_where_less_is_computed_in():
  model, variables = build()
  low = computing_in('bfloat16', model)
  pieces, after = in_pieces(low, variables)
  assert {leaf.dtype for leaf in jax.tree.leaves((pieces, after['carry']))} == {jnp.dtype('float32')}
  np.testing.assert_allclose(pieces, model.apply(variables, TOKENS), atol=0.05)
