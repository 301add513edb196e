"""The steps to measure: one size per model family, the same in every library.

To add a family, add an entry here and, if the libraries have no such model yet, a function of the same name in `ours`,
`stock`, `torch_peer` and `keras_peer`, which are imported only in the process that measures them.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import numpy as np

Batch = Callable[[np.random.Generator], dict[str, np.ndarray]]


@dataclass(frozen=True)
class Family:
  """One training step: float32, Adam at 1e-3, the mean loss of one batch.

  The loss is cross-entropy for integer targets, else squared error.
  """

  name: str
  about: str  # sizes, for the tables
  draw: Batch  # 'inputs' and 'targets'
  build: Callable[[ModuleType], Any]  # a library's module -> its model
  goals: Mapping[str, float] = field(default_factory=dict)  # targets: highest ratio of our time to a library's

  def batch(self) -> dict[str, np.ndarray]:
    """The batch that every library is given."""
    return self.draw(np.random.default_rng(0))


def images(batch: int, *shape: int, num_classes: int = 10) -> Batch:
  """Noise [batch, *shape] with random classes."""
  return lambda rng: {
    'inputs': rng.normal(size=(batch, *shape)).astype(np.float32),
    'targets': rng.integers(num_classes, size=batch, dtype=np.int32),
  }


def texts(batch: int, length: int, vocab_size: int) -> Batch:
  """Random tokens [batch, length] with next-token targets."""

  def draw(rng: np.random.Generator) -> dict[str, np.ndarray]:
    tokens = rng.integers(vocab_size, size=(batch, length + 1), dtype=np.int32)
    return {'inputs': tokens[:, :-1], 'targets': tokens[:, 1:]}

  return draw


def noise(batch: int, size: int, *shape: int) -> Batch:
  """Noise [batch, size] with random target images [batch, *shape]."""
  return lambda rng: {
    'inputs': rng.normal(size=(batch, size)).astype(np.float32),
    'targets': rng.uniform(-1, 1, size=(batch, *shape)).astype(np.float32),
  }


def _resnet(name: str, norm: str) -> Family:
  return Family(
    name,
    f'ResNet-20 with {norm} norm, 32x32x3, batch 64',
    images(64, 32, 32, 3),
    lambda library: library.resnet(32, 20, 10, norm),
    {'torch': 1.25, 'torch_tuned': 1.9},
  )


def _language_model(cell: str) -> Family:
  return Family(
    cell,
    f'{cell.upper()} language model, 256 units, 32 x 64 tokens of 256',
    texts(32, 64, 256),
    lambda library: library.language_model(cell, 256, 256),
    {'torch': 1.2, 'torch_tuned': 1.2},
  )


FAMILIES = {
  family.name: family
  for family in (
    Family(
      'mlp',
      '784-512-512-10, batch 128',
      images(128, 784),
      lambda library: library.mlp(784, (512, 512), 10),
      {'torch': 0.6, 'torch_tuned': 0.75},
    ),
    Family(
      'cnn',
      '3x3 convolutions of 32 and 64 channels with pooling, dense 128, 28x28, batch 128',
      images(128, 28, 28, 1),
      lambda library: library.cnn(28, (32, 64), 128, 10),
      {'torch': 0.55, 'torch_tuned': 0.85},
    ),
    _resnet('resnet', 'group'),
    _resnet('resnet_batch', 'batch'),
    _language_model('lstm'),
    _language_model('gru'),
    Family(
      'gpt',
      '4 layers of width 256, 8 heads, 16 x 128 tokens of 256',
      texts(16, 128, 256),
      lambda library: library.gpt(256, 4, 256, 8, 128),
      {'torch': 1.2, 'torch_tuned': 1.2},
    ),
    Family(
      'dcgan',
      'generator of 28x28 images by 256 and 128 channels, squared error, batch 64',
      noise(64, 100, 28, 28, 1),
      lambda library: library.generator(100, (256, 128)),
      {'torch': 1.1, 'torch_tuned': 1.4},
    ),
  )
}
