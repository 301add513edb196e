"""Encoder and decoder with attention that translate verses of the Bible from English to Spanish.

Reaches a BLEU of 10 on books that it has not seen, in seven minutes on two CPU cores: see README.md.
"""

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.wiring import supervised_experiment
from research.data import bible, text
from research.data import pairs as parallel
from research.data.examples import Dataset
from research.errors import ConfigError
from research.evaluate import translation
from research.models.rnn import GATES, RNN, Padded
from research.models.search import Hypotheses
from research.models.seq2seq import SCORES, BahdanauDecoder, LuongDecoder, Pair, Seq2Seq, translate
from research.objectives.translation import token_cross_entropy
from research.report.agreement import Target
from research.tasks.base import State, evaluation_variables
from research.tasks.precision import computing_in
from research.train.config import Config as Base
from research.train.config import as_field, check_below, check_known, check_least
from research.train.experiment import Experiment, Request, Sampler
from research.train.optimizer import Optimizer
from research.train.scales import at_scale, scales
from research.types import Batch

TARGETS = (Target('test/bleu', least=8.0, margin=1.0),)
END = 0  # the token parallel.END


@dataclasses.dataclass
class Config(Base):
  """One recurrent layer each; attention after the recurrence, so that a step is a few large products."""

  vocabulary: int = 4_000  # byte pairs, shared by both languages
  longest: int = 48  # tokens of a verse that is trained on; what is longer is left out of training, and of nothing else
  features: int = 128  # of an embedding
  encoder_units: int = 128  # in each direction
  decoder_units: int = 256  # of the one layer that writes
  cell: str = 'gru'  # of encoder and decoder: elman, gru, lstm or layer_norm_lstm
  decoder: str = 'luong'  # luong (attention after the recurrence) or bahdanau (within it, which is a GRU)
  score: str = 'general'  # of the attention: dot, general or additive
  dropout: float = 0.1  # part of the embeddings, of the encoded source and of the last layer
  label_smoothing: float = 0.1  # part of the target's mass spread over the vocabulary
  beams: int = 4  # hypotheses of the search; 1 is greedy
  penalty: float = 1.0  # exponent of the length by which hypotheses are compared
  watched: int = 128  # most verses of the validation books, evenly spread, that make the validation part
  verses: int = 0  # of each part; 0 is all

  def validate(self) -> None:
    super().validate()
    check_least(self, text.BYTES + 1, 'vocabulary')  # and END
    check_least(self, 1, 'longest', 'features', 'encoder_units', 'decoder_units', 'beams', 'watched')
    check_below(self, 1, 'dropout', 'label_smoothing')
    check_below(self, math.inf, 'penalty')
    check_known(self, 'cell', GATES)
    check_known(self, 'score', SCORES)
    if self.verses < 0:
      raise ConfigError(f'config.verses={self.verses}: must not be negative (0 is all)')
    if self.score == 'dot' and self.decoder_units != 2 * self.encoder_units:
      raise ConfigError(
        f'config.decoder_units={self.decoder_units}: must be 2 x config.encoder_units={self.encoder_units} for the '
        'score dot; general does not need it'
      )
    self.model(vocabulary=1)  # which knows the decoders

  def build(self) -> Experiment:
    verses = parallel.Parts(*(part.every(self.verses) for part in bible.bible_en_es()))
    tokenizer = parallel.shared_tokenizer(verses.train, self.vocabulary)
    with as_field():
      train = parallel.encoded(verses.train, tokenizer, self.longest)
    validation = parallel.encoded(verses.validation.every(self.watched), tokenizer)
    test = parallel.encoded(verses.test, tokenizer)
    model = self.model(tokenizer.size)
    return supervised_experiment(
      self,
      Dataset(train, validation, test),
      model,
      token_cross_entropy(self.label_smoothing),
      score=lambda metrics: metrics['validation/bleu'],
      preprocess=as_pair,
      metrics=(translation.corpus_scores(tokenizer.decode),),
      figures=(translation.attention_of_one(tokenizer.decode, END),),
      predict=self.translator(model),
      files={text.FILE: tokenizer.to_json()},
    )

  def model(self, vocabulary: int) -> Seq2Seq:
    encoder = RNN(self.encoder_units, cell=self.cell, bidirectional=True)
    match self.decoder:
      case 'luong':
        decoder = LuongDecoder(RNN(self.decoder_units, cell=self.cell), self.score)
      case 'bahdanau':
        decoder = BahdanauDecoder(self.decoder_units, self.score)
      case _:
        raise ConfigError(f'config.decoder={self.decoder!r}: must be luong or bahdanau')
    return Seq2Seq(vocabulary, self.features, encoder, decoder, self.dropout)

  def translator(self, model: Seq2Seq) -> Callable[[State, Batch], Hypotheses]:
    """Translations of a batch's inputs; weights in half precision, for they are many."""
    network = computing_in(self.precision, model)

    def predict(state: State, batch: Batch) -> Hypotheses:
      source = Padded(batch['inputs'], batch['lengths'])
      found = translate(network, evaluation_variables(state), source, END, self.beams, self.penalty)
      return found._replace(kept=found.kept.astype(jnp.float16))

    return predict

  def sampler(self, files: Mapping[str, str]) -> Sampler:
    """Translates the prompt, and draws the attention."""
    tokenizer = text.from_files(files)
    model = self.model(tokenizer.size)
    translate_one = jax.jit(
      lambda variables, source: translate(model, variables, source, END, self.beams, self.penalty)
    )

    def sample(variables: Any, key: jax.Array, request: Request) -> Iterator[tuple[str, Any]]:
      request.refuse('input', 'length', 'temperature', instead='prompt')
      tokens = tokenizer.encode(request.prompt)
      if not len(tokens):
        raise ConfigError("--prompt='': give English text to translate")
      found = translate_one(variables, Padded(jnp.asarray(tokens[None]), jnp.asarray([len(tokens)])))
      written = np.asarray(found.tokens[0])
      yield 'translation', tokenizer.decode(written)
      yield 'attention', translation.attention_of(tokenizer.decode, END, tokens, written, np.asarray(found.kept[0]))

    return sample


def as_pair(batch: Batch) -> dict[str, Any]:
  """A batch whose `inputs` are a Pair: the decoder is fed with END and all of the target but its last token."""
  targets = jnp.asarray(batch['targets'])
  fed = jnp.concatenate([jnp.full_like(targets[:, :1], END), targets[:, :-1]], axis=1)
  return {**batch, 'inputs': Pair(Padded(batch['inputs'], batch['lengths']), fed)}


def get_config(scale: str = '') -> Config:
  """The recorded experiment; 'fast' is a first look at it, 'tiny' the same with small numbers, for tests."""
  small = {'vocabulary': 300, 'features': 8, 'encoder_units': 8, 'decoder_units': 8, 'longest': 64, 'beams': 2}
  recorded = Config(
    steps=3_000,
    batch_size=32,
    optimizer=Optimizer('adam', lr=2e-3, schedule='cosine', warmup=300, clip_norm=1.0, b2=0.98),
    ema=0.995,
    evaluate_every=1_000,
    evaluate_batch_size=64,
    checkpoint_every=1_500,
  )
  return at_scale(scale, scales(recorded, steps=20, batch_size=16, verses=48, watched=8, **small))
