"""An encoder-decoder with attention that reverses strings, with beam search; for tests."""

import dataclasses

import numpy as np

from experiments.seq2seq_translation.config import END, as_pair
from experiments.wiring import supervised_experiment
from research.data.examples import Arrays, Dataset
from research.evaluate import translation
from research.models.rnn import RNN
from research.models.search import Hypotheses
from research.models.seq2seq import LuongDecoder, Seq2Seq, translate
from research.objectives.translation import token_cross_entropy
from research.parallel.mesh import MeshShape
from research.tasks.network import Network
from research.train.config import Config as Base
from research.train.experiment import Experiment
from research.train.optimizer import Optimizer
from research.types import Batch, Fitted, Model, PyTree

LETTERS, LONGEST = 4, 5


def reversals(count: int, seed: int) -> Arrays:
  """Strings of at least two letters, and their reversals; both end with END."""
  rng = np.random.default_rng(seed)
  lengths = rng.integers(2, LONGEST + 1, count).astype(np.int32)
  inputs = rng.integers(1, LETTERS + 1, (count, LONGEST + 1)).astype(np.int32)
  places = np.arange(LONGEST + 1)[None]
  inputs[places >= lengths[:, None]] = END
  targets = np.take_along_axis(inputs, (lengths[:, None] - 1 - places) % (LONGEST + 1), axis=1)
  return Arrays({'inputs': inputs, 'targets': targets, 'lengths': lengths, 'target_lengths': lengths + 1})


def spelled(tokens: np.ndarray) -> str:
  """Letters separated by spaces, as BLEU counts words."""
  return ' '.join('abcd'[token - 1] for token in tokens if token != END)


@dataclasses.dataclass
class Config(Base):
  """One small layer each."""

  hidden_size: int = 4  # of the encoder and of the decoder
  dropout_rate: float = 0.1  # part of the embeddings, of the encoded source and of the last layer

  def network(self, fitted: Fitted) -> Network:
    encoder, decoder = RNN(self.hidden_size, cell='gru'), LuongDecoder(RNN(self.hidden_size, cell='gru'))
    return Network(Seq2Seq(LETTERS + 1, 4, encoder, decoder, self.dropout_rate), as_pair, self.translate)

  def translate(self, model: Model, variables: PyTree, batch: Batch) -> Hypotheses:
    return translate(model, variables, batch['inputs'], END, beam_size=2)

  def build(self) -> Experiment:
    return supervised_experiment(
      self,
      Dataset(reversals(200, 0), reversals(20, 1), reversals(20, 2)),
      {},
      token_cross_entropy(0.1),
      score=lambda metrics: metrics['validation/bleu'],
      metrics=(translation.corpus_scores(spelled),),
    )


def get_config(scale: str = '') -> Config:
  return Config(
    steps=40,
    batch_size=32,
    optimizer=Optimizer('adam', lr=1e-2, clip_norm=1.0),
    log_every=7,
    eval_every=10,
    eval_batch_size=16,
    checkpoint_every=5,
    mesh=MeshShape(1),
  )
