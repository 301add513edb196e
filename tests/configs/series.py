"""An LSTM-FCN classifying variable-length series, with batch norm and augmentation; for tests."""

import dataclasses

import numpy as np

from experiments.series import padded
from experiments.wiring import supervised_experiment
from research.data import augment_series
from research.data.augment import chain
from research.data.examples import Arrays, Dataset
from research.evaluate import exact
from research.models.temporal import LSTMFCN
from research.objectives.classification import softmax_cross_entropy
from research.parallel.mesh import MeshShape
from research.tasks.network import Network
from research.train.config import Config as Base
from research.train.experiment import Experiment
from research.train.optimizer import Optimizer
from research.types import Fitted

CLASSES, LENGTH = 3, 12


def waves(count: int, seed: int) -> Arrays:
  """Noisy sines with a frequency per class; the padding has extreme values."""
  rng = np.random.default_rng(seed)
  targets, lengths = rng.integers(CLASSES, size=count), rng.integers(LENGTH // 2, LENGTH + 1, count)
  steps = np.arange(LENGTH)[None]
  series = np.sin(0.5 * (1 + targets[:, None]) * steps) + 0.1 * rng.normal(size=(count, LENGTH))
  inputs = np.where(steps < lengths[:, None], series, 1e3)[..., None].astype(np.float32)
  return Arrays({'inputs': inputs, 'targets': targets.astype(np.int32), 'lengths': lengths.astype(np.int32)})


@dataclasses.dataclass
class Config(Base):
  """Two small convolutions."""

  channels: int = 4  # of a convolution
  dropout_rate: float = 0.3  # part of the features, and of the LSTM's output

  def network(self, fitted: Fitted) -> Network:
    options = {
      'length': LENGTH,
      'hidden_size': 4,
      'dropout_rate': self.dropout_rate,
      'recurrent_dropout_rate': self.dropout_rate,
    }
    return Network(LSTMFCN(CLASSES, (self.channels, self.channels), (4, 3), **options), padded)

  def build(self) -> Experiment:
    return supervised_experiment(
      self,
      Dataset(waves(200, 0), waves(50, 1), waves(70, 2)),
      {},
      softmax_cross_entropy(0.1),
      score=lambda metrics: metrics['validation/accuracy'],
      augment=chain(augment_series.stretch(0.1), augment_series.shift(2), augment_series.jitter(0.1)),
      metrics=(exact.multiclass,),
    )


def get_config(scale: str = '') -> Config:
  return Config(
    steps=40,
    batch_size=32,
    optimizer=Optimizer('adam', lr=1e-2, freeze=('*lock_0/*',)),
    ema_decay=0.9,
    log_every=7,
    eval_every=10,
    eval_batch_size=16,
    checkpoint_every=5,
    mesh=MeshShape(1),
  )
