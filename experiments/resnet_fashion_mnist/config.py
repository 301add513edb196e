"""A small residual network on Fashion-MNIST. Reaches 93 % in ten minutes on two CPU cores: see README.md."""

import dataclasses

from experiments.wiring import check_network, supervised_experiment
from research.data import augment, images
from research.data.augment import Augmentation
from research.data.preprocess import standardize
from research.evaluate import exact, figures
from research.models.resnet import resnet
from research.models.views import TenViews
from research.objectives.classification import softmax_cross_entropy
from research.report.agreement import Target
from research.tasks.network import Network
from research.train.config import Config as Base
from research.train.config import as_field
from research.train.experiment import Experiment
from research.train.optimizer import Optimizer
from research.train.scales import at_scale, scales, steps_of
from research.types import Fitted

TARGETS = (Target('test/accuracy', at_least=0.930, margin=0.008, examples=10_000),)


@dataclasses.dataclass
class Config(Base):
  """The ResNet of He et al. for small images, with crops and flips."""

  depth: int = 8  # layers: 8, 14 or 20
  width: int = 32  # channels of the first stage, doubled by each later one
  stem: str = 'pooled'  # plain, or pooled, which halves the image before the first stage
  norm: str = 'batch'  # batch or group
  preactivation: bool = True  # v2 instead of v1
  label_smoothing: float = 0.1  # fraction of the target distribution spread over all classes
  crop_padding: int = 2  # padding of the random crops, in pixels
  tta_shift: int = 1  # shift of the views averaged in evaluation, in pixels

  def validate(self) -> None:
    super().validate()
    check_network(self, {'class_names': range(10)}, pixels='tta_shift')
    with as_field(crop='crop_padding'):
      self.augmentation()
      softmax_cross_entropy(self.label_smoothing)

  def network(self, fitted: Fitted) -> Network:
    options = {'width': self.width, 'stem': self.stem, 'norm': self.norm, 'preactivation': self.preactivation}
    model = TenViews(resnet(self.depth, len(fitted['class_names']), **options), self.tta_shift)
    return Network(model, standardize(mean=72.9, std=90.0))

  def augmentation(self) -> Augmentation:
    return augment.chain(augment.crop(self.crop_padding), augment.flip())

  def build(self, fitted: Fitted | None = None) -> Experiment:
    data = images.fashion_mnist()
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
    steps=steps_of(epochs=18, examples=55_000, batch_size=128),
    batch_size=128,
    optimizer=Optimizer('nesterov', lr=0.1, schedule='cosine', warmup_steps=500, l2=5e-4),
    ema_decay=0.999,
    eval_every=1_500,
    eval_batch_size=100,  # of ten views each
    checkpoint_every=2_000,
  )
  return at_scale(scale, scales(recorded, steps=20, batch_size=32, width=4))
