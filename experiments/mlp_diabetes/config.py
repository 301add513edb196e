"""A multi-layer perceptron that predicts the progression of diabetes, cross-validated.

Reaches an R2 of 0.49 over five folds of a second or two each on two CPU cores: see README.md.
"""

import dataclasses

from flax import linen as nn
from jax import Array

from experiments.wiring import check_network, supervised_experiment
from research.data import tables
from research.data.preprocess import standardize
from research.data.scaling import UNSCALED, fit_scale
from research.evaluate import exact, figures
from research.models.mlp import MLP
from research.objectives.regression import huber
from research.report.agreement import Target
from research.tasks.network import Network
from research.train.config import Config as Base
from research.train.config import as_field
from research.train.experiment import Experiment
from research.train.optimizer import Optimizer
from research.train.scales import at_scale, scales
from research.types import Fitted

TARGETS = (Target('test/r2', at_least=0.45, margin=0.03),)


class Rescaled(nn.Module):
  """A model of standardized targets [batch, 1] with outputs in the targets' own units."""

  model: nn.Module
  mean: float  # of the training targets
  std: float

  @nn.compact
  def __call__(self, inputs: Array, train: bool = False) -> Array:
    return self.mean + self.std * self.model(inputs, train)


@dataclasses.dataclass
class Config(Base):
  """A small network, strongly regularized: there are 318 training examples with noisy targets."""

  fold: int = 0  # the fold of the cross-validation to test on
  num_folds: int = 5  # number of folds
  hidden_sizes: tuple[int, ...] = (64, 64)  # of the hidden layers
  activation: str = 'gelu'  # of the hidden layers
  dropout_rate: float = 0.3  # of the hidden units
  huber_delta: float = 100.0  # error up to which the loss is quadratic, in the targets' units

  def validate(self) -> None:
    super().validate()
    check_network(self, {'inputs': UNSCALED, 'targets': UNSCALED})
    with as_field(delta='huber_delta'):
      huber(self.huber_delta)

  def network(self, fitted: Fitted) -> Network:
    model = Rescaled(MLP(self.hidden_sizes, 1, self.activation, self.dropout_rate), **fitted['targets'])
    return Network(model, standardize(**fitted['inputs']))

  def build(self, fitted: Fitted | None = None) -> Experiment:
    data = tables.diabetes(self.fold, self.num_folds)
    fitted = fitted or {name: fit_scale(data.train.arrays[name])._asdict() for name in ('inputs', 'targets')}
    return supervised_experiment(
      self,
      data,
      fitted,
      huber(self.huber_delta),
      score=lambda metrics: -metrics['validation/loss'],
      metrics=(exact.regression,),
      figures=(figures.predictions(),),
    )


def get_config(scale: str = '') -> Config:
  """The recorded experiment; 'fast' is a first look at it, 'tiny' the same with small numbers, for tests."""
  recorded = Config(
    steps=600,
    batch_size=64,
    optimizer=Optimizer('adamw', lr=1e-3, schedule='cosine', warmup_steps=50, weight_decay=1e-1),
    ema_decay=0.99,
    eval_every=200,
    eval_batch_size=128,
  )
  return at_scale(scale, scales(recorded, steps=20, batch_size=32, hidden_sizes=(8,)))
