"""A toy GAN: points on a ring of eight Gaussians, which reveals mode collapse."""

import dataclasses
from collections.abc import Iterator, Mapping

import jax
import numpy as np
from jax import Array

from research.data.examples import Arrays
from research.data.source import Source
from research.evaluate.evaluator import Evaluator, make_eval_step
from research.models.mlp import MLP
from research.models.remat import with_remat
from research.parallel.mesh import MeshShape
from research.tasks.adversarial import DISCRIMINATOR, GENERATOR, adversarial, latent, variables_of
from research.tasks.base import evaluation_variables
from research.tasks.network import Network
from research.train.config import Config as Base
from research.train.experiment import Experiment
from research.train.optimizer import Optimizer, make_optimizer
from research.types import Batch, Fitted, Model, PyTree

MODES, SPREAD, LATENT, SCALE = 8, 0.1, 2, 2.0


def centers() -> np.ndarray:
  angle = 2 * np.pi * np.arange(MODES) / MODES
  return 2 * np.stack([np.cos(angle), np.sin(angle)], -1)


def ring(count: int, seed: int) -> Arrays:
  """Points [count, 2], equally many per mode."""
  noise = np.random.default_rng(seed).normal(size=(count, 2))
  return Arrays({'inputs': (centers()[np.arange(count) % MODES] + SPREAD * noise).astype(np.float32)})


def coverage(points: np.ndarray, rows: Mapping[str, np.ndarray]) -> Iterator[tuple[str, float]]:
  """Modes with at least a quarter of their share within four standard deviations, and the fraction of points there."""
  distance = np.linalg.norm(points[:, None] - centers(), axis=-1)
  near = np.bincount(distance.argmin(1)[distance.min(1) < 4 * SPREAD], minlength=MODES)
  yield 'modes', float((near >= len(points) / MODES / 4).sum())
  yield 'near', float(near.sum() / len(points))


@dataclasses.dataclass
class Config(Base):
  """Both players have two hidden layers."""

  width: int = 64  # units of a hidden layer
  norm: str = ''  # of a hidden layer of the generator
  dropout_rate: float = 0.0  # of the discriminator
  critic_steps: int = 1  # updates of the discriminator in a step

  def network(self, fitted: Fitted) -> Network:
    return Network(MLP((self.width, self.width), 2, norm=self.norm), outputs=points, reads=('latent',))

  def build(self) -> Experiment:
    sizes = (self.width, self.width)
    generator = with_remat(MLP(sizes, 2, norm=self.norm, axis_name=self.mesh.axis_name), self.remat)
    discriminator = MLP(sizes, 1, activation='leaky_relu', dropout_rate=self.dropout_rate)
    task = adversarial(
      generator,
      with_remat(discriminator, self.remat),
      LATENT,
      *(make_optimizer(self.optimizer, self.steps) for _ in (GENERATOR, DISCRIMINATOR)),
      self.critic_steps,
      lambda batch: {**batch, 'inputs': batch['inputs'] / SCALE},
      self.ema_decay,
      self.compute,
    )

    network = self.network({}).computing_in(self.precision)

    def predict(state, batch):
      return network(evaluation_variables(state), {'latent': latent(jax.random.key(0), batch['index'], LATENT)})

    validation = Evaluator(make_eval_step(task, predict), ring(1024, 1), self.eval_batch_size, (coverage,))
    return Experiment(
      task=task,
      train=Source(ring(4096, 0), self.batch_size, self.seed),
      evaluators={'validation': validation},
      final_evaluators={'validation': validation},
      network=network,
      inputs=lambda: {'latent': jax.ShapeDtypeStruct((LATENT,), np.float32)},
    )


def points(generator: Model, variables: PyTree, batch: Batch) -> Array:
  """Generated points [batch, 2], in the units of the data."""
  return SCALE * generator.apply(variables_of(variables, GENERATOR), batch['latent'], train=False)


def get_config(scale: str = '') -> Config:
  return Config(
    steps=40,
    batch_size=64,
    optimizer=Optimizer('adam', lr=1e-3, b1=0.5),
    log_every=7,
    eval_every=10,
    eval_batch_size=256,
    checkpoint_every=5,
    mesh=MeshShape(1),
    critic_steps=2,
    norm='batch',
    dropout_rate=0.1,
    ema_decay=0.9,
  )
