"""A multi-layer perceptron on MNIST without augmentation. Reaches 98.6 % in two minutes: see README.md."""

import dataclasses

from experiments.wiring import check_network, supervised_experiment
from research.data import images
from research.data.preprocess import standardize
from research.evaluate import exact, figures
from research.models.mlp import MLP
from research.objectives.classification import softmax_cross_entropy
from research.report.agreement import Target
from research.tasks.network import Network
from research.train.config import Config as Base
from research.train.config import as_field
from research.train.experiment import Experiment
from research.train.optimizer import Optimizer
from research.train.scales import at_scale, scales, steps_of
from research.types import Fitted

TARGETS = (Target('test/accuracy', at_least=0.984, margin=0.004, examples=10_000),)


@dataclasses.dataclass
class Config(Base):
  """Hidden layers of linear, norm, activation and dropout."""

  hidden_sizes: tuple[int, ...] = (512, 512)  # of the hidden layers
  activation: str = 'relu'  # of the hidden layers
  norm: str = 'batch'  # batch, layer, or '' for none
  dropout_rate: float = 0.4  # of the hidden units
  label_smoothing: float = 0.1  # fraction of the target distribution spread over all classes

  def validate(self) -> None:
    super().validate()
    check_network(self, {'class_names': range(10)})
    with as_field():
      softmax_cross_entropy(self.label_smoothing)

  def network(self, fitted: Fitted) -> Network:
    model = MLP(self.hidden_sizes, len(fitted['class_names']), self.activation, self.dropout_rate, self.norm)
    return Network(model, standardize(mean=33.3, std=78.6))

  def build(self, fitted: Fitted | None = None) -> Experiment:
    data = images.mnist()
    return supervised_experiment(
      self,
      data,
      fitted or {'class_names': data.class_names},
      softmax_cross_entropy(self.label_smoothing),
      score=lambda metrics: metrics['validation/accuracy'],
      metrics=(exact.multiclass,),
      figures=(figures.confusion(data.class_names), figures.mistakes(data.class_names)),
    )


def get_config(scale: str = '') -> Config:
  """The recorded experiment; 'fast' is a first look at it, 'tiny' the same with small numbers, for tests."""
  recorded = Config(
    steps=steps_of(epochs=40, examples=55_000, batch_size=256),
    batch_size=256,
    optimizer=Optimizer('adamw', lr=2e-3, schedule='cosine', warmup_steps=400, weight_decay=1e-2),
    ema_decay=0.999,
    eval_every=1_000,
    eval_batch_size=1_000,
    checkpoint_every=2_000,
  )
  return at_scale(scale, scales(recorded, steps=20, batch_size=32, hidden_sizes=(16,)))
