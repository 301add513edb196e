"""Forecasts of two variables with an interval, on windows sliced on access; for tests."""

import dataclasses

import numpy as np

from experiments.wiring import supervised_experiment
from research.data import series
from research.evaluate import forecasts
from research.models.forecasting import PatchRNN
from research.models.rnn import RNN
from research.objectives.forecasting import forecast_error
from research.parallel.mesh import MeshShape
from research.tasks.network import Network
from research.train.config import Config as Base
from research.train.experiment import Experiment
from research.train.optimizer import Optimizer
from research.types import Fitted

SEASON = 4
QUANTILES = (0.1, 0.9)


def walks(steps: int) -> np.ndarray:
  """Two variables [steps, 2] that fluctuate around a season."""
  wandering = 0.1 * np.random.default_rng(0).normal(size=(steps, 2)).cumsum(0)
  return wandering + np.sin(2 * np.pi * np.arange(steps) / SEASON)[:, None]


@dataclasses.dataclass
class Config(Base):
  """Two patches of a season."""

  hidden_size: int = 4  # of the recurrent layer
  dropout_rate: float = 0.2  # part of the units of a patch, and of those that the forecast is read from

  def network(self, fitted: Fitted) -> Network:
    return Network(PatchRNN(RNN(self.hidden_size), 3, 1 + len(QUANTILES), SEASON, self.dropout_rate))

  def build(self) -> Experiment:
    columns = ('one', 'other')
    data = series.windows(walks(300), None, (200, 250, 300), context=2 * SEASON, horizon=3, columns=columns)
    return supervised_experiment(
      self,
      data,
      data.fitted,
      forecast_error(QUANTILES),
      score=lambda metrics: -metrics['validation/mse'],
      metrics=(forecasts.naive_errors(SEASON),),
    )


def get_config(scale: str = '') -> Config:
  return Config(
    steps=40,
    batch_size=32,
    optimizer=Optimizer('adam', lr=1e-2),
    log_every=7,
    eval_every=10,
    eval_batch_size=16,
    checkpoint_every=5,
    mesh=MeshShape(1),
  )
