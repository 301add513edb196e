"""An encoder-decoder with attention that translates Bible verses from English to Spanish.

Reaches a BLEU of 10 on unseen books in seven minutes on two CPU cores: see README.md.
"""

import dataclasses
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.wiring import check_network, supervised_experiment
from research.data import bible, text
from research.data import pairs as parallel
from research.data.examples import Dataset
from research.errors import ConfigError, check_range
from research.evaluate import translation
from research.models.rnn import RNN, Padded
from research.models.search import Hypotheses
from research.models.seq2seq import BahdanauDecoder, LuongDecoder, Pair, Seq2Seq, translate
from research.objectives.translation import token_cross_entropy
from research.report.agreement import Target
from research.tasks.network import Network
from research.train.config import Config as Base
from research.train.config import as_field, check_at_least
from research.train.experiment import Experiment, Request, Sampler
from research.train.optimizer import Optimizer
from research.train.scales import at_scale, scales
from research.types import Batch, Fitted, Model, PyTree

TARGETS = (Target('test/bleu', at_least=8.0, margin=1.0),)
END = 0  # the token parallel.END


@dataclasses.dataclass
class Config(Base):
  """One recurrent layer each; attention after the recurrence, so a step is a few large products."""

  vocab_size: int = 4_000  # byte pairs, shared by both languages
  max_length: int = 48  # tokens of a training verse; longer ones are left out of training only
  embed_dim: int = 128  # of the embeddings
  encoder_hidden_size: int = 128  # in each direction
  decoder_hidden_size: int = 256  # of the decoder's layer
  cell: str = 'gru'  # of encoder and decoder: elman, gru, lstm or layer_norm_lstm
  decoder: str = 'luong'  # luong (attention after the recurrence) or bahdanau (within it, which is a GRU)
  attention_score: str = 'general'  # of the attention: dot, general or additive
  dropout_rate: float = 0.1  # of the embeddings, the encoded source and the last layer
  label_smoothing: float = 0.1  # fraction of the target distribution spread over the vocabulary
  beam_size: int = 4  # hypotheses of the search; 1 is greedy
  length_penalty: float = 1.0  # exponent of the length normalization
  max_validation_verses: int = 128  # verses of the validation split, evenly spread over its books
  verses: int = 0  # per split, at most; 0 is all

  def validate(self) -> None:
    super().validate()
    check_at_least(self, text.BYTES + 1, 'vocab_size')  # and END
    check_at_least(self, 1, 'max_length', 'beam_size', 'max_validation_verses')
    if self.verses < 0:
      raise ConfigError(f'config.verses={self.verses}: must not be negative (0 is all)')
    check_network(self, {'tokenizer': text.Bytes().to_json()}, score='attention_score')
    with as_field():
      check_range('length_penalty', self.length_penalty)
      token_cross_entropy(self.label_smoothing)

  def build(self, fitted: Fitted | None = None) -> Experiment:
    verses = parallel.Splits(*(part.every(self.verses) for part in bible.bible_en_es()))
    fitted = fitted or {'tokenizer': parallel.shared_tokenizer(verses.train, self.vocab_size).to_json()}
    tokenizer = text.from_json(fitted['tokenizer'])
    with as_field():
      train = parallel.encoded(verses.train, tokenizer, self.max_length)
    validation = parallel.encoded(verses.validation.every(self.max_validation_verses), tokenizer)
    test = parallel.encoded(verses.test, tokenizer)
    return supervised_experiment(
      self,
      Dataset(train, validation, test),
      fitted,
      token_cross_entropy(self.label_smoothing),
      score=lambda metrics: metrics['validation/bleu'],
      metrics=(translation.corpus_scores(tokenizer.decode),),
      figures=(translation.attention_of_one(tokenizer.decode, END),),
    )

  def network(self, fitted: Fitted) -> Network:
    return Network(self.model(text.from_json(fitted['tokenizer']).size), as_pair, self.translate)

  def model(self, vocab_size: int) -> Seq2Seq:
    with as_field(hidden_size='encoder_hidden_size'):
      encoder = RNN(self.encoder_hidden_size, cell=self.cell, bidirectional=True)
    return Seq2Seq(vocab_size, self.embed_dim, encoder, self.decoder_model(), self.dropout_rate)

  def decoder_model(self) -> LuongDecoder | BahdanauDecoder:
    with as_field(hidden_size='decoder_hidden_size', score='attention_score'):
      match self.decoder:
        case 'luong':
          return LuongDecoder(RNN(self.decoder_hidden_size, cell=self.cell), self.attention_score)
        case 'bahdanau':
          return BahdanauDecoder(self.decoder_hidden_size, self.attention_score)
    raise ConfigError(f'config.decoder={self.decoder!r}: must be luong or bahdanau')

  def translate(self, model: Model, variables: PyTree, batch: Batch) -> Hypotheses:
    """Translations of a batch's inputs; attention weights in half precision, to save memory."""
    found = translate(model, variables, batch['inputs'], END, self.beam_size, self.length_penalty)
    return found._replace(kept=found.kept.astype(jnp.float16))

  def sampler(self, fitted: Fitted) -> Sampler:
    """Translates the prompt and plots the attention."""
    tokenizer = text.from_json(fitted['tokenizer'])
    translate_one = jax.jit(self.network(fitted))

    def sample(variables: Any, key: jax.Array, request: Request) -> Iterator[tuple[str, Any]]:
      request.refuse('input', 'length', 'temperature', instead='prompt')
      tokens = tokenizer.encode(request.prompt)
      if not len(tokens):
        raise ConfigError("--prompt='': give English text to translate")
      found = translate_one(variables, {'inputs': tokens[None], 'lengths': np.array([len(tokens)], np.int32)})
      written = np.asarray(found.tokens[0])
      yield 'translation', tokenizer.decode(written)
      yield 'attention', translation.attention_of(tokenizer.decode, END, tokens, written, np.asarray(found.kept[0]))

    return sample


def as_pair(batch: Batch) -> dict[str, Any]:
  """A batch whose `inputs` are a Pair: the decoder's inputs are END and the target without its last token.

  Without targets, the inputs are only the source, to be translated.
  """
  source = Padded(batch['inputs'], batch['lengths'])
  if 'targets' not in batch:
    return {**batch, 'inputs': source}
  targets = jnp.asarray(batch['targets'])
  fed = jnp.concatenate([jnp.full_like(targets[:, :1], END), targets[:, :-1]], axis=1)
  return {**batch, 'inputs': Pair(source, fed)}


def get_config(scale: str = '') -> Config:
  """The recorded experiment; 'fast' is a first look at it, 'tiny' the same with small numbers, for tests."""
  small = {
    'vocab_size': 300,
    'embed_dim': 8,
    'encoder_hidden_size': 8,
    'decoder_hidden_size': 8,
    'max_length': 64,
    'beam_size': 2,
  }
  recorded = Config(
    steps=3_000,
    batch_size=32,
    optimizer=Optimizer('adam', lr=2e-3, schedule='cosine', warmup_steps=300, clip_norm=1.0, b2=0.98),
    ema_decay=0.995,
    eval_every=1_000,
    eval_batch_size=64,
    checkpoint_every=1_500,
  )
  return at_scale(scale, scales(recorded, steps=20, batch_size=16, verses=48, max_validation_verses=8, **small))
