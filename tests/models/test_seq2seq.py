"""Encoder, attention and decoders: the formulas step by step in numpy, padding, and decoding by the step."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research.errors import ConfigError
from research.models.rnn import RNN, Padded
from research.models.search import Hypotheses
from research.models.seq2seq import SCORES, Attention, BahdanauDecoder, LuongDecoder, Pair, Seq2Seq, translate

KEY = jax.random.key(0)
RANDOM = np.random.default_rng(0)
VOCABULARY, FEATURES, ENCODER, DECODER, END = 11, 6, 5, 10, 0
LENGTHS = np.array([7, 1, 5], np.int32)
SOURCE = Padded(jnp.asarray(RANDOM.integers(1, VOCABULARY, (3, 7))), jnp.asarray(LENGTHS))
TARGET = jnp.asarray(RANDOM.integers(0, VOCABULARY, (3, 6)))
DECODERS = [
  *(LuongDecoder(RNN(DECODER, cell='gru'), score) for score in ('dot', 'general', 'additive')),
  *(BahdanauDecoder(DECODER, score) for score in ('dot', 'general', 'additive')),
]
both_decoders = pytest.mark.parametrize('decoder', [DECODERS[1], DECODERS[5]], ids=('luong', 'bahdanau'))
every_decoder = pytest.mark.parametrize('decoder', DECODERS, ids=lambda one: f'{type(one).__name__}-{one.score}')


@functools.cache
def make(decoder, **options):
  model = Seq2Seq(VOCABULARY, FEATURES, RNN(ENCODER, cell='gru', bidirectional=True), decoder, **options)
  variables = model.init(KEY, Pair(SOURCE, TARGET))
  random = np.random.default_rng(1)  # larger ones than at the start, and no zeros, so that every part tells
  return model, jax.tree.map(lambda leaf: jnp.asarray(random.normal(0, 0.6, leaf.shape), jnp.float32), variables)


@functools.partial(jax.jit, static_argnums=0)
def decoded(model, variables, source, target):
  """Logits and weights under teacher forcing."""
  memory, carry = model.apply(variables, source, method='encode')
  return model.apply(variables, memory, carry, target, method='decode')[1:]


@functools.partial(jax.jit, static_argnums=(0, 3))
def translated(model, variables, source, beam_size):
  return translate(model, variables, source, END, beam_size)


def sigmoid(x):
  return 1 / (1 + np.exp(-x))


def gru(x, h, recurrent, bias):
  """A step of torch's GRU, whose input is projected already."""
  (x_r, x_z, x_n), (h_r, h_z, h_n) = np.split(x, 3), np.split(h @ recurrent, 3)
  reset, update = sigmoid(x_r + h_r), sigmoid(x_z + h_z)
  return (1 - update) * np.tanh(x_n + reset * (h_n + bias)) + update * h


def affine(x, params):
  return x @ params['kernel'] + params.get('bias', 0)


def encode(params, tokens):
  """States of both directions [length, 2 units] of one sentence without padding."""
  embedded = params['embedding'][tokens] * np.sqrt(FEATURES)
  ways = []
  for name, order in (('forward_0', 1), ('backward_0', -1)):
    layer, h, states = params['encoder'][name], np.zeros(ENCODER), []
    for x in affine(embedded, layer['input'])[::order]:
      h = gru(x, h, layer['recurrent'], layer['recurrent_bias'])
      states.append(h)
    ways.append(np.stack(states)[::order])
  return np.concatenate(ways, -1)


def attend(params, score, query, values):
  if score == 'dot':
    scores = values @ query
  elif score == 'general':
    scores = values @ params['key']['kernel'] @ query
  else:
    scores = np.tanh(affine(query, params['query']) + values @ params['key']['kernel']) @ params['vector']
  weights = np.exp(scores - scores.max())
  weights /= weights.sum()
  return weights @ values, weights


def reference(params, decoder, source, target):
  """Logits and weights for one sentence, a token at a time."""
  values = encode(params, source)
  h = np.tanh(affine(values.mean(0), params['begin_0']))
  inside = isinstance(decoder, BahdanauDecoder)
  layer = params['decoder'] if inside else params['decoder']['rnn']['forward_0']
  logits, all_weights = [], []
  for token in target:
    x = affine(params['embedding'][token] * np.sqrt(FEATURES), layer['input'])
    if inside:
      context, weights = attend(params['decoder'].get('attention'), decoder.score, h, values)
      h = gru(x + context @ layer['context']['kernel'], h, layer['recurrent']['kernel'], layer['recurrent_bias'])
    else:
      h = gru(x, h, layer['recurrent'], layer['recurrent_bias'])
      context, weights = attend(params['decoder'].get('attention'), decoder.score, h, values)
    hidden = np.tanh(affine(np.concatenate([h, context]), params['combine']))
    logits.append(hidden @ params['embedding'].T + params['bias'])
    all_weights.append(weights)
  return np.stack(logits), np.stack(all_weights)


@every_decoder
def test_is_the_formula_step_by_step(decoder):
  model, variables = make(decoder)
  logits, weights = decoded(model, variables, SOURCE, TARGET)
  params = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), variables['params'])
  for number, length in enumerate(LENGTHS):
    source = np.asarray(SOURCE.values)[number, :length]
    expected = reference(params, decoder, source, np.asarray(TARGET)[number])
    np.testing.assert_allclose(logits[number], expected[0], atol=1e-4)
    np.testing.assert_allclose(weights[number, :, :length], expected[1], atol=1e-5)
  np.testing.assert_allclose(logits, model.apply(variables, Pair(SOURCE, TARGET)), atol=1e-5)


@both_decoders
def test_padding_of_the_source_changes_neither_logits_nor_gradients(decoder):
  model, variables = make(decoder)
  changed = SOURCE._replace(values=jnp.where(jnp.arange(7)[None] < LENGTHS[:, None], SOURCE.values, 9))
  longer = SOURCE._replace(values=jnp.pad(changed.values, ((0, 0), (0, 4)), constant_values=3))

  @jax.jit
  def loss(variables, source):
    return jax.value_and_grad(lambda variables: jnp.sin(model.apply(variables, Pair(source, TARGET))).sum())(variables)

  expected = loss(variables, SOURCE)
  for source in (changed, longer):
    found = loss(variables, source)
    jax.tree.map(lambda one, other: np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4), found, expected)


@both_decoders
def test_weights_are_a_distribution_over_the_source(decoder):
  model, variables = make(decoder)
  _, weights = decoded(model, variables, SOURCE, TARGET)
  np.testing.assert_allclose(weights.sum(-1), 1, rtol=1e-5)
  for number, length in enumerate(LENGTHS):
    assert not weights[number, :, length:].any()


@pytest.mark.parametrize('score', SCORES)
def test_the_context_of_an_empty_source_is_zero_and_without_gradient(score):
  attention, mask = Attention(4, score), jnp.array([[True, True, False], [False] * 3])
  values, queries = (jax.random.normal(jax.random.key(seed), (2, 3, 4)) for seed in (1, 2))

  def attend(attention, values, queries):
    return attention(queries, attention.remember(values, mask))

  params = attention.init(jax.random.key(0), values, queries, method=attend)
  run = lambda values, queries: attention.apply(params, values, queries, method=attend)  # noqa: E731
  contexts, weights = run(values, queries)
  assert not contexts[1].any() and not weights[1].any()
  np.testing.assert_allclose(weights[0].sum(-1), 1, rtol=1e-6)
  gradients = jax.grad(lambda *given: jnp.sum(run(*given)[0] ** 2), (0, 1))(values, queries)
  assert all(not leaf[1].any() and np.isfinite(leaf).all() and leaf[0].any() for leaf in gradients)


@both_decoders
def test_a_position_sees_no_later_token(decoder):
  model, variables = make(decoder)
  before, _ = decoded(model, variables, SOURCE, TARGET)
  after, _ = decoded(model, variables, SOURCE, TARGET.at[:, 3].add(1) % VOCABULARY)
  np.testing.assert_array_equal(before[:, :3], after[:, :3])
  assert not np.allclose(before[:, 3:], after[:, 3:], atol=1e-3)


@both_decoders
def test_greedy_translation_is_the_likeliest_token_under_teacher_forcing(decoder):
  """One beam, fed with what it wrote, writes the same again; its weights are those of teacher forcing."""
  model, variables = make(decoder)
  found = translated(model, variables, SOURCE, 1)
  fed = jnp.concatenate([jnp.full((3, 1), END), found.tokens[:, :-1]], 1)
  logits, weights = decoded(model, variables, SOURCE, fed)
  for number, length in enumerate(LENGTHS):
    written = lengths_of(found)[number]
    assert written <= length + length // 2 + 10
    np.testing.assert_array_equal(found.tokens[number, :written], logits[number, :written].argmax(-1))
    np.testing.assert_allclose(found.kept[number, :written], weights[number, :written], atol=1e-5)


def test_a_translation_that_does_not_end_is_left_at_its_limit():
  model, variables = make(DECODERS[1])
  endless = variables['params'] | {'bias': variables['params']['bias'].at[END].set(-1e6)}
  found = translated(model, {'params': endless}, SOURCE, 2)
  assert found.tokens.shape == (3, 7 + 3 + 10)
  np.testing.assert_array_equal((np.asarray(found.tokens) != END).sum(1), [7 + 3 + 10, 1 + 0 + 10, 5 + 2 + 10])


def test_embeddings_and_scores_begin_with_a_size_of_one():
  """Embeddings times the root of their size, and a vector that scores what is between -1 and 1."""
  model = Seq2Seq(400, 50, RNN(1), LuongDecoder(RNN(2), 'additive'))
  params = model.init(KEY, Pair(SOURCE, TARGET))['params']
  assert float(params['embedding'].std()) == pytest.approx(50**-0.5, rel=0.03)
  decoder = LuongDecoder(RNN(900), 'additive')
  model = Seq2Seq(11, 2, RNN(1), decoder)
  vector = model.init(KEY, Pair(SOURCE, TARGET))['params']['decoder']['attention']['vector']
  assert float(vector.std()) == pytest.approx(900**-0.5, rel=0.1)


def lengths_of(found: Hypotheses) -> list[int]:
  """Tokens written, with the one that ends them; to the limit where there is none."""
  limits = LENGTHS + LENGTHS // 2 + 10
  return [
    next((n + 1 for n, token in enumerate(row[:limit]) if token == END), int(limit))
    for row, limit in zip(np.asarray(found.tokens), limits, strict=True)
  ]


@both_decoders
def test_translation_does_not_see_padding_or_the_other_sentences(decoder):
  model, variables = make(decoder)
  together = translated(model, variables, SOURCE, 3)
  for number, length in enumerate(LENGTHS):
    one = Padded(SOURCE.values[number : number + 1, :length], SOURCE.lengths[number : number + 1])
    alone = translated(model, variables, one, 3)
    np.testing.assert_array_equal(alone.tokens[0], together.tokens[number, : alone.tokens.shape[1]])
    np.testing.assert_allclose(alone.scores[0], together.scores[number], rtol=1e-4)


def test_dropout_acts_in_training_alone():
  model, variables = make(LuongDecoder(RNN(DECODER)), dropout_rate=0.5)
  pair = Pair(SOURCE, TARGET)
  first, second = (model.apply(variables, pair, train=True, rngs={'dropout': jax.random.key(n)}) for n in range(2))
  plain, _ = make(LuongDecoder(RNN(DECODER)))
  assert not np.allclose(first, second)
  np.testing.assert_array_equal(model.apply(variables, pair), plain.apply(variables, pair))


def test_scores_that_cannot_be():
  with pytest.raises(ConfigError, match="score='cosine': is unknown; nearest: dot, general, additive"):
    make(LuongDecoder(RNN(DECODER), 'cosine'))
  with pytest.raises(ConfigError, match='score=dot: needs as many units in the decoder, 4, as in all directions'):
    make(LuongDecoder(RNN(4), 'dot'))
  with pytest.raises(ConfigError, match='hidden_size=0'):
    make(BahdanauDecoder(0))
  with pytest.raises(ConfigError, match='dropout_rate=1.0'):
    make(LuongDecoder(RNN(DECODER)), dropout_rate=1.0)
