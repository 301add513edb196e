"""Encoder-decoder with attention, from token sequences to token sequences."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array
from jaxtyping import Bool, Float, Int

from research.errors import ConfigError, check_choice, check_counts, check_range
from research.models.rnn import RNN, Padded, check_forward
from research.models.search import Hypotheses, beam_search
from research.ops import recurrent
from research.ops.bias import bias_add
from research.ops.layers import Dense, Embed
from research.ops.padding import valid
from research.types import PyTree

SCORES = ('dot', 'general', 'additive')


class Pair(NamedTuple):
  """The model's inputs: a source, and the decoder's input tokens (teacher forcing)."""

  source: Padded
  target: Int[Array, 'batch target']  # each position predicts the next token; the first is the start token


class Memory(NamedTuple):
  """An encoded source, as the decoder's attention reads it."""

  values: Float[Array, 'batch source features']
  keys: Float[Array, 'batch source hidden']
  mask: Bool[Array, 'batch source']  # False past the source's end


class Attention(nn.Module):
  """Attention weights over source positions, and the weighted mean of the source's values.

  The score of a query q and a value h is q.h ('dot') or q.Wh ('general': Luong et al. 2015, equation 8), or
  v.tanh(Uq + Wh) ('additive': Bahdanau et al. 2015, appendix A.1.2). Raises ConfigError for another score.
  """

  hidden_size: int  # of queries, and of the hidden layer of the additive score
  score: str = 'general'

  def __post_init__(self):
    check_counts(hidden_size=self.hidden_size)
    check_choice('score', self.score, SCORES)
    super().__post_init__()

  def setup(self):
    if self.score != 'dot':
      self.key = Dense(self.hidden_size, use_bias=False)
    if self.score == 'additive':
      self.query = Dense(self.hidden_size)
      self.vector = self.param('vector', nn.initializers.normal(self.hidden_size**-0.5), (self.hidden_size,))

  def remember(self, values: Float[Array, 'batch source features'], mask: Bool[Array, 'batch source']) -> Memory:
    """The query-independent part, computed once for all steps."""
    return Memory(values, values if self.score == 'dot' else self.key(values), mask)

  def __call__(
    self, queries: Float[Array, 'batch target hidden'], memory: Memory
  ) -> tuple[Float[Array, 'batch target features'], Float[Array, 'batch target source']]:
    """Contexts and weights; positions past the source's end have weight 0, and an empty source gives a context of 0."""
    scores = self._scores(queries, memory.keys)
    mask = memory.mask[:, None]
    weights = jnp.where(mask, jax.nn.softmax(jnp.where(mask, scores, jnp.finfo(scores.dtype).min), axis=-1), 0)
    return jnp.einsum('bts,bsf->btf', weights, memory.values), weights

  def _scores(self, queries: Array, keys: Array) -> Float[Array, 'batch target source']:
    if self.score != 'additive':
      return jnp.einsum('btu,bsu->bts', queries, keys)
    hidden = jnp.tanh(self.query(queries)[:, :, None] + keys[:, None])
    return jnp.einsum('btsu,u->bts', hidden, self.vector.astype(hidden.dtype))


class LuongDecoder(nn.Module):
  """Attention after the recurrence (Luong et al. 2015, section 3, without input feeding).

  The recurrent layers see only the target, so teacher forcing takes a few large products for all steps. Raises
  ConfigError for a bidirectional network.
  """

  rnn: RNN
  score: str = 'general'

  def __post_init__(self):
    check_forward(self.rnn, 'a decoder')
    check_choice('score', self.score, SCORES)
    super().__post_init__()

  def setup(self):
    self.attention = Attention(self.hidden_size, self.score)

  @property
  def hidden_size(self) -> int:
    return self.rnn.hidden_size

  def initial_carry(self, batch_size: int) -> PyTree:
    return self.rnn.initial_carry(batch_size)

  def __call__(self, embedded: Float[Array, 'batch target embedding'], memory: Memory, carry: PyTree, train: bool):
    outputs, carry = self.rnn(embedded, carry=carry, train=train)
    contexts, weights = self.attention(outputs, memory)
    return carry, outputs, contexts, weights


class BahdanauDecoder(nn.Module):
  """Attention within the recurrence (Bahdanau et al. 2015, appendix A.2): the context is an input of a GRU.

  Attention depends on the previous state, so the steps are sequential; only the products with the source and the
  embedded target are hoisted out of the scan.
  """

  hidden_size: int
  score: str = 'additive'

  def __post_init__(self):
    check_counts(hidden_size=self.hidden_size)
    check_choice('score', self.score, SCORES)
    super().__post_init__()

  def setup(self):
    self.attention = Attention(self.hidden_size, self.score)
    self.input = Dense(3 * self.hidden_size)
    self.context = Dense(3 * self.hidden_size, use_bias=False)
    self.recurrent = Dense(3 * self.hidden_size, use_bias=False, kernel_init=nn.initializers.orthogonal())
    self.recurrent_bias = self.param('recurrent_bias', nn.initializers.zeros, (self.hidden_size,))

  def initial_carry(self, batch_size: int) -> PyTree:
    return (jnp.zeros((batch_size, self.hidden_size)),)

  def __call__(self, embedded: Float[Array, 'batch target embedding'], memory: Memory, carry: PyTree, train: bool):
    scan = nn.scan(
      BahdanauDecoder.step,
      variable_broadcast='params',
      split_rngs={'params': False},
      in_axes=(1, nn.broadcast),
      out_axes=1,
    )
    carry, (outputs, contexts, weights) = scan(self, carry, self.input(embedded), memory)
    return carry, outputs, contexts, weights

  def step(self, carry: PyTree, x: Float[Array, 'batch gates'], memory: Memory):
    contexts, weights = self.attention(carry[0][:, None], memory)
    context = contexts[:, 0]
    bias = self.recurrent_bias.astype(x.dtype)
    carry = recurrent.gru.step(bias, x + self.context(context), self.recurrent(carry[0]), carry)
    return carry, (carry[0], context, weights[:, 0])


class Seq2Seq(nn.Module):
  """Logits of the next token of a target, given its source.

  Source, target and output share one embedding table (Press and Wolf 2017), so both languages share a vocabulary. The
  decoder's initial state is a function of the mean encoded source; logits are computed from
  tanh(W[output; context]) (Luong et al. 2015, equation 5).
  """

  vocab_size: int
  embed_dim: int  # of the embeddings, and of the last hidden layer
  encoder: RNN
  decoder: LuongDecoder | BahdanauDecoder
  dropout_rate: float = 0.0  # of the embeddings, the encoded source and the last layer

  def __post_init__(self):
    check_counts(vocab_size=self.vocab_size, embed_dim=self.embed_dim)
    encoded = self.encoder.hidden_size * (2 if self.encoder.bidirectional else 1)
    if self.decoder.score == 'dot' and self.decoder.hidden_size != encoded:
      raise ConfigError(
        f'score=dot: needs as many units in the decoder, {self.decoder.hidden_size}, as in all directions of the '
        f'encoder, {encoded}; general works with any'
      )
    check_range('dropout_rate', self.dropout_rate, below=1)
    super().__post_init__()

  def setup(self):
    self.embed = Embed(self.vocab_size, self.embed_dim, nn.initializers.normal(self.embed_dim**-0.5))
    nn.share_scope(self, self.embed)
    self.bias = self.param('bias', nn.initializers.zeros, (self.vocab_size,))
    self.begin = [Dense(leaf.shape[-1]) for leaf in jax.tree.leaves(self.decoder.initial_carry(1))]
    self.combine = Dense(self.embed_dim)
    self.drop = nn.Dropout(self.dropout_rate)

  def __call__(self, inputs: Pair, train: bool = False) -> Float[Array, 'batch target vocabulary']:
    memory, carry = self.encode(inputs.source, train)
    return self.decode(memory, carry, inputs.target, train)[1]

  def encode(self, source: Padded, train: bool = False) -> tuple[Memory, PyTree]:
    """The memory for the decoder's attention, and its initial carry."""
    values, _ = self.encoder(self._embedded(source.values, train), source.lengths, train=train)
    summary = values.sum(1) / jnp.maximum(jnp.asarray(source.lengths), 1)[:, None].astype(values.dtype)
    structure = jax.tree.structure(self.decoder.initial_carry(1))
    carry = structure.unflatten([jnp.tanh(layer(summary)) for layer in self.begin])
    values = self.drop(values, deterministic=not train)
    return self.decoder.attention.remember(values, valid(source.lengths, source.values.shape[1])), carry

  def decode(
    self, memory: Memory, carry: PyTree, target: Int[Array, 'batch target'], train: bool = False
  ) -> tuple[PyTree, Float[Array, 'batch target vocabulary'], Float[Array, 'batch target source']]:
    """The carry after `target`, the logits of each next token, and the attention weights."""
    carry, outputs, contexts, weights = self.decoder(self._embedded(target, train), memory, carry, train)
    hidden = jnp.tanh(self.combine(jnp.concatenate([outputs, contexts], -1)))
    logits = self.embed.attend(self.drop(hidden, deterministic=not train))
    return carry, bias_add(logits, self.bias.astype(logits.dtype)), weights

  def _embedded(self, tokens: Int[Array, 'batch length'], train: bool) -> Float[Array, 'batch length features']:
    return self.drop(self.embed(tokens) * self.embed_dim**0.5, deterministic=not train)


def translate(
  model: Seq2Seq, variables: PyTree, source: Padded, eos_id: int, beam_size: int = 4, length_penalty: float = 1.0
) -> Hypotheses:
  """The best translation of each source by `beam_search`, with its attention weights [batch, target, source].

  A target has at most 1.5 times the source's tokens plus 10. The token `eos_id` starts and ends it.
  """
  memory, carry = model.apply(variables, source, method='encode')

  def step(carry: PyTree, tokens: Array) -> tuple[PyTree, Array, Array]:
    carry, logits, weights = model.apply(variables, memory, carry, tokens[:, None], method='decode')
    return carry, jax.nn.log_softmax(logits.squeeze(1)), weights.squeeze(1)

  limits, max_length = (most + most // 2 + 10 for most in (source.lengths, source.values.shape[1]))
  return beam_search(step, carry, limits, eos_id, max_length, beam_size, length_penalty)
