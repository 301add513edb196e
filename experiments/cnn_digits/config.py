"""A convolutional network on 8x8 digits. Reaches 98.5 % on the test split in under a minute: see README.md."""

import dataclasses

from experiments.wiring import check_network, supervised_experiment
from research.data import augment, images
from research.data.augment import Augmentation
from research.data.preprocess import standardize
from research.evaluate import exact, figures
from research.models.cnn import ConvNet
from research.objectives.classification import softmax_cross_entropy
from research.report.agreement import Target
from research.tasks.network import Network
from research.train.config import Config as Base
from research.train.config import as_field
from research.train.experiment import Experiment
from research.train.optimizer import Optimizer
from research.train.scales import at_scale, scales
from research.types import Fitted

TARGETS = (Target('test/accuracy', at_least=0.985, margin=0.015, examples=360),)


@dataclasses.dataclass
class Config(Base):
  """Two stages of convolutions, as images of 8x8 pixels allow no more."""

  channels: tuple[int, ...] = (32, 64)  # of each stage
  hidden_sizes: tuple[int, ...] = (128,)  # of the hidden dense layers
  dropout_rate: float = 0.3  # before each dense layer
  label_smoothing: float = 0.05  # fraction of the target distribution spread over all classes
  shift: int = 1  # largest random translation, in pixels

  def validate(self) -> None:
    super().validate()
    check_network(self, {'class_names': range(10)})
    with as_field():
      self.augmentation()
      softmax_cross_entropy(self.label_smoothing)

  def network(self, fitted: Fitted) -> Network:
    model = ConvNet(
      self.channels, len(fitted['class_names']), self.hidden_sizes, norm='batch', dropout_rate=self.dropout_rate
    )
    return Network(model, standardize(mean=4.9, std=6.0))

  def augmentation(self) -> Augmentation:
    return augment.shift(self.shift)

  def build(self, fitted: Fitted | None = None) -> Experiment:
    data = images.digits()
    return supervised_experiment(
      self,
      data,
      fitted or {'class_names': data.class_names},
      softmax_cross_entropy(self.label_smoothing),
      score=lambda metrics: metrics['validation/accuracy'],
      augment=self.augmentation(),
      metrics=(exact.multiclass,),
      figures=(figures.confusion(data.class_names), figures.mistakes(data.class_names)),
    )


def get_config(scale: str = '') -> Config:
  """The recorded experiment; 'fast' is a first look at it, 'tiny' the same with small numbers, for tests."""
  recorded = Config(
    steps=3_000,
    batch_size=64,
    optimizer=Optimizer('adamw', lr=2e-3, schedule='cosine', warmup_steps=100, weight_decay=1e-2),
    ema_decay=0.995,
    eval_every=500,
    eval_batch_size=360,
    checkpoint_every=1_500,
  )
  return at_scale(scale, scales(recorded, steps=30, batch_size=32, channels=(4, 8), hidden_sizes=(16,)))
