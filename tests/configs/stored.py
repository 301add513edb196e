"""A classifier of points whose splits are files, read on access; for tests."""

import dataclasses
from functools import cached_property
from pathlib import Path

import numpy as np

from experiments.wiring import supervised_experiment
from research.data.examples import Arrays, Dataset
from research.data.preprocess import standardize
from research.data.scaling import fit_scale
from research.evaluate import exact
from research.models.mlp import MLP
from research.objectives.classification import softmax_cross_entropy
from research.parallel.mesh import MeshShape
from research.tasks.network import Network
from research.train.config import Config as Base
from research.train.experiment import Experiment
from research.types import Fitted

PARTS = {'train': 96, 'validation': 32, 'test': 40}


def store(folder: Path) -> None:
  """Writes the splits: three clusters of points, far from zero."""
  for seed, (part, count) in enumerate(PARTS.items()):
    rng = np.random.default_rng(seed)
    targets = rng.integers(3, size=count).astype(np.int32)
    inputs = 1e3 + 10 * np.eye(3)[targets] + rng.normal(size=(count, 3))
    np.savez(folder / f'{part}.npz', inputs=inputs.astype(np.float32), targets=targets)


class Stored:
  """The examples of a file."""

  def __init__(self, path: Path):
    self._path = path

  @cached_property
  def arrays(self) -> Arrays:
    return Arrays(dict(np.load(self._path)))

  def __len__(self) -> int:
    return len(self.arrays)

  def rows(self, indices: np.ndarray) -> dict[str, np.ndarray]:
    return self.arrays.rows(indices)

  def fingerprint(self) -> str:
    return self.arrays.fingerprint()


@dataclasses.dataclass
class Config(Base):
  """One hidden layer."""

  folder: str = ''  # where `store` wrote the parts

  def network(self, fitted: Fitted) -> Network:
    return Network(MLP((8,), len(fitted['class_names'])), standardize(**fitted['scale']))

  def build(self, fitted: Fitted | None = None) -> Experiment:
    train, validation, test = (Stored(Path(self.folder) / f'{part}.npz') for part in PARTS)
    fitted = fitted or {'class_names': ('a', 'b', 'c'), 'scale': fit_scale(train.arrays.arrays['inputs'])._asdict()}
    return supervised_experiment(
      self,
      Dataset(train, validation, test),
      fitted,
      softmax_cross_entropy(),
      score=lambda metrics: metrics['validation/accuracy'],
      metrics=(exact.multiclass,),
    )


def get_config(scale: str = '') -> Config:
  return Config(steps=20, batch_size=32, log_every=10, eval_every=10, eval_batch_size=16, mesh=MeshShape(1))
