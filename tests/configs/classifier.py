"""A small perceptron on digits, for tests."""

import dataclasses

from experiments.wiring import supervised_experiment
from research.data import images
from research.data.preprocess import standardize
from research.evaluate import exact
from research.models.mlp import MLP
from research.objectives.classification import softmax_cross_entropy
from research.parallel.mesh import MeshShape
from research.tasks.network import Network
from research.train.config import Config as Base
from research.train.experiment import Experiment
from research.types import Fitted


@dataclasses.dataclass
class Config(Base):
  """One hidden layer."""

  width: int = 32  # units of the hidden layer

  def network(self, fitted: Fitted) -> Network:
    return Network(MLP((self.width,), 10), standardize(mean=4.9, std=6.0))

  def build(self) -> Experiment:
    return supervised_experiment(
      self,
      images.digits(),
      {},
      softmax_cross_entropy(),
      score=lambda metrics: metrics['validation/accuracy'],
      metrics=(exact.multiclass,),
    )


def get_config(scale: str = '') -> Config:
  return Config(
    steps=40,
    batch_size=32,
    log_every=7,
    eval_every=20,
    eval_batch_size=64,
    checkpoint_every=5,
    mesh=MeshShape(1),
  )
