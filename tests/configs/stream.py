"""A recurrent language model that carries state from window to window, with dropout; for tests."""

import dataclasses

import numpy as np

from experiments.lstm_shakespeare.config import preprocess
from experiments.wiring import supervised_experiment
from research.data import windows
from research.data.examples import Dataset
from research.models.language import LanguageModel
from research.models.rnn import RNN
from research.objectives.language import next_token
from research.parallel.mesh import MeshShape
from research.tasks.network import Network
from research.train.config import Config as Base
from research.train.experiment import Experiment
from research.train.optimizer import Optimizer
from research.types import Fitted

SIZE = 11  # tokens of the vocabulary


def tokens(count: int, seed: int) -> np.ndarray:
  """A random walk on the vocabulary: the next token depends on the last."""
  return np.random.default_rng(seed).choice([1, 1, 2, 5], count).cumsum().astype(np.int32) % SIZE


@dataclasses.dataclass
class Config(Base):
  """One small recurrent layer."""

  hidden_size: int = 16  # of the recurrent layer
  dropout_rate: float = 0.2  # part of the units before and after it

  def network(self, fitted: Fitted) -> Network:
    return Network(LanguageModel(SIZE, RNN(self.hidden_size), 8, self.dropout_rate), preprocess)

  def build(self) -> Experiment:
    examples = windows.stream_examples([tokens(900, 0)], self.batch_size, 8)
    data = Dataset(examples, *(windows.context_examples([tokens(200, seed)], 4, 12) for seed in (1, 2)))
    return supervised_experiment(
      self,
      data,
      {},
      next_token(np.ones(SIZE, np.float32)),
      score=lambda metrics: -metrics['validation/loss'],
      source=windows.Streams(examples, self.batch_size),
    )


def get_config(scale: str = '') -> Config:
  return Config(
    steps=40,
    batch_size=8,
    optimizer=Optimizer('adam', lr=1e-2, clip_norm=1.0),
    log_every=7,
    eval_every=10,
    eval_batch_size=4,
    checkpoint_every=5,
    mesh=MeshShape(1),
  )
