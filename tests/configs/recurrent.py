"""A language model whose state goes on from batch to batch, with every kind of dropout; for tests."""

import dataclasses

import numpy as np

from experiments.wiring import supervised_experiment
from research.data.examples import Dataset
from research.data.windows import Streams, context_examples, stream_examples
from research.models.language import LanguageModel, Stream
from research.models.rnn import RNN
from research.objectives.base import carries_state
from research.objectives.language import next_token
from research.train.config import Config as Base
from research.train.experiment import Experiment
from research.train.mesh import MeshShape

VOCABULARY = 12


def text(length: int, seed: int) -> np.ndarray:
  """A text in which a token is most often followed by the next one but two."""
  strides = np.random.default_rng(seed).choice((3, 1, 5), length, p=(0.8, 0.1, 0.1))
  return (np.cumsum(strides) % VOCABULARY).astype(np.int32)


def preprocess(batch):
  inputs = Stream(batch['inputs'], batch['reset']) if 'reset' in batch else batch['inputs']
  return {**batch, 'inputs': inputs}


@dataclasses.dataclass
class Config(Base):
  """Two small layers."""

  units: int = 8  # of each layer
  dropout: float = 0.2  # part of the units, between layers and from step to step

  def build(self) -> Experiment:
    train = stream_examples([text(32 * 5 * 9, 0)], self.batch_size, 5)  # nine steps, then every row begins anew
    held_out = [context_examples([text(300, seed), text(77, seed + 1)], 4, 12) for seed in (1, 3)]
    rnn = RNN(self.units, 2, 'lstm', dropout=self.dropout, recurrent_dropout=self.dropout)
    return supervised_experiment(
      self,
      Dataset(train, *held_out),
      LanguageModel(VOCABULARY, rnn, 4, self.dropout),
      carries_state(next_token(np.full(VOCABULARY, 2, np.float32))),
      score=lambda metrics: -metrics['validation/bits_per_token'],
      preprocess=preprocess,
      source=Streams(train, self.batch_size),
      files={'tokens.txt': 'none'},
    )


def get_config(scale: str = '') -> Config:
  return Config(
    steps=40,
    batch_size=32,
    ema=0.9,
    log_every=7,
    evaluate_every=10,
    evaluate_batch_size=24,
    checkpoint_every=5,
    mesh=MeshShape(1),
  )
