"""Batch norm, dropout, augmentation and EMA, on examples that are not in memory; for tests."""

import dataclasses

import numpy as np

from experiments.wiring import supervised_experiment
from research.data import augment, images
from research.data.examples import Arrays
from research.data.preprocess import standardize
from research.models.cnn import ConvNet
from research.objectives.classification import softmax_cross_entropy
from research.parallel.mesh import MeshShape
from research.tasks.network import Network
from research.train.config import Config as Base
from research.train.experiment import Experiment
from research.train.optimizer import Optimizer
from research.types import Fitted


@dataclasses.dataclass(frozen=True)
class Remote:
  """Examples that are loaded batch by batch."""

  arrays: Arrays

  def __len__(self) -> int:
    return len(self.arrays)

  def rows(self, indices: np.ndarray) -> dict[str, np.ndarray]:
    return self.arrays.rows(indices)

  def fingerprint(self) -> str:
    return self.arrays.fingerprint()


@dataclasses.dataclass
class Config(Base):
  """A small convolutional network with every kind of randomness and statistics."""

  width: int = 4  # channels of the first stage
  dropout_rate: float = 0.3  # part of the channels and units

  def network(self, fitted: Fitted) -> Network:
    options = {'norm': 'batch', 'channel_dropout_rate': self.dropout_rate, 'dropout_rate': self.dropout_rate}
    model = ConvNet((self.width, 2 * self.width), 10, (4 * self.width,), **options)
    return Network(model, standardize(mean=4.9, std=6.0))

  def build(self) -> Experiment:
    data = images.digits()
    return supervised_experiment(
      self,
      data._replace(train=Remote(data.train)),
      {},
      softmax_cross_entropy(0.1),
      score=lambda metrics: metrics['validation/accuracy'],
      augment=augment.chain(augment.shift(1), augment.cutout(3)),
    )


def get_config(scale: str = '') -> Config:
  return Config(
    steps=40,
    batch_size=32,
    optimizer=Optimizer(
      'nesterov', lr=0.05, schedule='cosine', schedule_steps=40, warmup_steps=5, weight_decay=1e-3, clip_norm=1.0
    ),
    ema_decay=0.9,
    log_every=7,
    eval_every=10,
    eval_batch_size=64,
    checkpoint_every=5,
    mesh=MeshShape(1),
  )
