"""A small LSTM-FCN that detects engine faults (FordA) or classifies any other dataset of the UCR archive.

Reaches 94 % on the test split in three minutes on two CPU cores: see README.md.
"""

import dataclasses

from experiments.series import padded
from experiments.wiring import check_network, supervised_experiment
from research.data import augment_series, ucr
from research.data.augment import Augmentation
from research.evaluate import exact, figures, figures_series
from research.models.temporal import LSTMFCN
from research.objectives.classification import softmax_cross_entropy
from research.report.agreement import Target
from research.tasks.network import Network
from research.train.config import Config as Base
from research.train.config import as_field
from research.train.experiment import Experiment
from research.train.optimizer import Optimizer
from research.train.scales import at_scale, scales
from research.types import Fitted

TARGETS = (Target('test/accuracy', at_least=0.915, margin=0.015, examples=1_320),)


@dataclasses.dataclass
class Config(Base):
  """The network of Karim et al. with narrower layers and a stride that halves the series."""

  dataset: str = 'FordA'  # any dataset of the UCR archive listed in research/data/ucr.sha256
  channels: tuple[int, ...] = (32, 64, 32)  # of each convolution
  kernel_sizes: tuple[int, ...] = (8, 5, 3)  # of each convolution
  stride: int = 2  # of the first convolution
  hidden_size: int = 8  # of the LSTM
  shuffle: bool = True  # the LSTM reads the whole series as one step
  dropout_rate: float = 0.0  # before the last layer
  recurrent_dropout_rate: float = 0.8  # of the LSTM's output
  label_smoothing: float = 0.1  # fraction of the target distribution spread over all classes
  jitter: float = 0.0  # standard deviation of the noise on each value
  scale: float = 0.1  # standard deviation of the random scale of a series
  shift: int = 20  # largest random shift, in steps
  stretch: float = 0.0  # largest random stretch in time, as a fraction

  def validate(self) -> None:
    super().validate()
    check_network(self, {'class_names': range(2), 'length': 1})
    with as_field():
      self.augmentation()
      softmax_cross_entropy(self.label_smoothing)
      ucr.archive(self.dataset)

  def build(self, fitted: Fitted | None = None) -> Experiment:
    augment, data = self.augmentation(), ucr.ucr(self.dataset)
    return supervised_experiment(
      self,
      data,
      fitted or {**data.fitted, 'class_names': data.class_names, 'length': data.train.arrays['inputs'].shape[1]},
      softmax_cross_entropy(self.label_smoothing),
      score=lambda metrics: metrics['validation/accuracy'],
      augment=augment,
      metrics=(exact.multiclass,),
      figures=(figures.confusion(data.class_names), figures_series.mistakes(data.class_names)),
    )

  def network(self, fitted: Fitted) -> Network:
    options = {
      'stride': self.stride,
      'dropout_rate': self.dropout_rate,
      'recurrent_dropout_rate': self.recurrent_dropout_rate,
    }
    options |= {'length': fitted['length'], 'shuffle': self.shuffle, 'hidden_size': self.hidden_size}
    return Network(LSTMFCN(len(fitted['class_names']), self.channels, self.kernel_sizes, **options), padded)

  def augmentation(self) -> Augmentation:
    return augment_series.varied(self.stretch, self.shift, self.scale, self.jitter)


def get_config(scale: str = '') -> Config:
  """The recorded experiment; 'fast' is a first look at it, 'tiny' the same with small numbers, for tests."""
  recorded = Config(
    steps=2_250,
    batch_size=64,
    optimizer=Optimizer('adamw', lr=2e-3, schedule='cosine', warmup_steps=100, weight_decay=1e-2),
    ema_decay=0.995,
    eval_every=225,
    eval_batch_size=240,
    checkpoint_every=1_125,
  )
  return at_scale(scale, scales(recorded, steps=20, batch_size=16, channels=(4, 4), kernel_sizes=(4, 3), stride=8))
