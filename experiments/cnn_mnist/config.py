"""A convolutional network on MNIST. Reaches 99.5 % in five minutes on two CPU cores: see README.md."""

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
from research.train.scales import at_scale, scales, steps_of
from research.types import Fitted

TARGETS = (Target('test/accuracy', at_least=0.994, margin=0.002, examples=10_000),)


@dataclasses.dataclass
class Config(Base):
  """Stages of 3x3 convolutions with batch norm, and light affine augmentation."""

  channels: tuple[int, ...] = (32, 64, 128)  # of each stage
  convs_per_stage: int = 1  # convolutions in a stage
  hidden_sizes: tuple[int, ...] = (128,)  # of the hidden dense layers
  dropout_rate: float = 0.4  # before each dense layer
  label_smoothing: float = 0.1  # fraction of the target distribution spread over all classes
  degrees: float = 10.0  # largest random rotation
  zoom: float = 0.1  # largest random scaling, as a fraction of the image
  shift: float = 2.0  # largest random translation, in pixels

  def validate(self) -> None:
    super().validate()
    check_network(self, {'class_names': range(10)})
    with as_field(pixels='shift'):
      self.augmentation()
      softmax_cross_entropy(self.label_smoothing)

  def network(self, fitted: Fitted) -> Network:
    options = {'norm': 'batch', 'dropout_rate': self.dropout_rate}
    model = ConvNet(self.channels, len(fitted['class_names']), self.hidden_sizes, self.convs_per_stage, **options)
    return Network(model, standardize(mean=33.3, std=78.6))

  def augmentation(self) -> Augmentation:
    return augment.affine(self.degrees, self.zoom, self.shift)

  def build(self, fitted: Fitted | None = None) -> Experiment:
    data = images.mnist()
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
    steps=steps_of(epochs=10, examples=55_000, batch_size=128),
    batch_size=128,
    optimizer=Optimizer('adamw', lr=2e-3, schedule='cosine', warmup_steps=400, weight_decay=1e-2),
    ema_decay=0.999,
    eval_every=1_000,
    checkpoint_every=2_000,
  )
  return at_scale(scale, scales(recorded, steps=20, batch_size=32, channels=(4, 8), hidden_sizes=(16,)))
