"""Language models: logits of the token that follows each token."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array
from jaxtyping import Bool, Float, Int

from research.errors import check_counts, check_range
from research.models.rnn import RNN, check_forward
from research.ops.layers import Dense, Embed
from research.types import PyTree


class Stream(NamedTuple):
  """Windows that continue the text of the previous batch."""

  tokens: Int[Array, 'batch length']
  reset: Bool[Array, ' batch']  # True where a new text begins


class LanguageModel(nn.Module):
  """Embedding, recurrent network, head.

  Tokens [batch, length] start from a zero carry. A `Stream` in training continues from the carry in the collection
  'carry' and stores the new one there; gradients are truncated at the window (truncated backpropagation through time,
  Williams and Peng 1990).

  Raises ConfigError for a dropout rate that is not below 1 and for a bidirectional network.
  """

  vocab_size: int
  rnn: RNN
  embed_dim: int
  dropout_rate: float = 0.0  # before and after the recurrent network
  tie_embeddings: bool = False  # the head projects to embed_dim and reuses the embedding (Press and Wolf 2017)

  def __post_init__(self):
    check_counts(vocab_size=self.vocab_size, embed_dim=self.embed_dim)
    check_range('dropout_rate', self.dropout_rate, below=1)
    check_forward(self.rnn, 'a language model')
    super().__post_init__()

  def __call__(
    self, inputs: Int[Array, 'batch length'] | Stream, train: bool = False
  ) -> Float[Array, 'batch length vocabulary']:
    tokens, reset = inputs if isinstance(inputs, Stream) else (inputs, None)
    carry = self.rnn.initial_carry(tokens.shape[0])
    if reset is None:
      return self.advance(tokens, carry, train)[0]
    if self.is_initializing():
      self.put_variable('carry', 'rnn', carry)
    elif train:
      carry = _reset(self.get_variable('carry', 'rnn'), reset)
    logits, carry = self.advance(tokens, carry, train)
    if train:
      self.put_variable('carry', 'rnn', carry)
    return logits

  @nn.compact
  def advance(
    self, tokens: Int[Array, 'batch length'], carry: PyTree, train: bool = False
  ) -> tuple[Float[Array, 'batch length vocabulary'], PyTree]:
    """Logits and the carry after the last token, so a text can be read or generated in chunks."""
    embed = Embed(self.vocab_size, self.embed_dim, name='embed')
    x = nn.Dropout(self.dropout_rate)(embed(tokens), deterministic=not train)
    x, carry = self.rnn(x, carry=carry, train=train)
    x = nn.Dropout(self.dropout_rate)(x, deterministic=not train)
    x = Dense(self.embed_dim if self.tie_embeddings else self.vocab_size, name='head')(x)
    return embed.attend(x) if self.tie_embeddings else x, carry


def _reset(carry: PyTree, reset: Bool[Array, ' batch']) -> PyTree:
  return jax.tree.map(lambda leaf: jnp.where(reset[:, None], 0, leaf), carry)
