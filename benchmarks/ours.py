"""Our own step: in `launch.train`, and in a bare loop."""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import Array
from jax.sharding import Mesh

from benchmarks import models
from benchmarks.families import Family
from research import random
from research.models.cnn import ConvNet
from research.models.language import LanguageModel
from research.models.mlp import MLP
from research.models.resnet import ResNet
from research.models.resnet import resnet as resnet_of
from research.models.rnn import RNN
from research.objectives.classification import softmax_cross_entropy
from research.objectives.language import next_token
from research.objectives.regression import mean_squared_error
from research.parallel import placement
from research.parallel.backend import on_mesh
from research.parallel.mesh import MeshShape, make_mesh, replicated
from research.tasks.base import Task
from research.tasks.supervised import supervised
from research.train.optimizer import Optimizer, make_optimizer
from research.train.run import first_state, make_step
from research.types import Batch, Objective, PyTree


def mlp(inputs: int, hidden_sizes: Sequence[int], num_classes: int) -> MLP:
  return MLP(hidden_sizes, num_classes)


def cnn(size: int, channels: Sequence[int], hidden_size: int, num_classes: int) -> ConvNet:
  return ConvNet(channels, num_classes, (hidden_size,))


def resnet(size: int, depth: int, num_classes: int, norm: str) -> ResNet:
  return resnet_of(depth, num_classes, norm=norm)


def language_model(cell: str, vocab_size: int, hidden_size: int) -> LanguageModel:
  return LanguageModel(vocab_size, RNN(hidden_size, cell=cell), hidden_size)


def gpt(vocab_size: int, num_layers: int, embed_dim: int, num_heads: int, max_length: int) -> models.GPT:
  return models.GPT(vocab_size, num_layers, embed_dim, num_heads, max_length)


def generator(noise: int, channels: tuple[int, int]) -> models.Generator:
  return models.Generator(channels)


class Fixed:
  """A feed of a constant batch, sharded over a mesh."""

  def __init__(self, batch: Batch, mesh: Mesh):
    self._batch = jax.device_put(batch, placement.batch_sharding(mesh))

  def inputs(self, step: int) -> Batch:
    return self._batch

  def batch(self, inputs: Batch, step: Array) -> Batch:
    return inputs


def as_launched(family: Family, weights: Path) -> Callable[[int], float]:
  """Function that runs a number of steps as `launch.train` does, on all devices, and returns their mean loss.

  Saves the initial parameters to the file `weights`, for the other libraries.
  """
  task, batch = task_of(family), family.batch()
  mesh = make_mesh(MeshShape(), len(batch['inputs']))
  feed, everywhere = Fixed(batch, mesh), replicated(mesh)
  key = jax.device_put(jax.random.key(0), everywhere)
  task, layout = on_mesh(task, MeshShape(), mesh, key, batch)
  place = (layout, everywhere)
  with jax.set_mesh(mesh):
    state, running = jax.jit(lambda batch: first_state(task, batch, key), out_shardings=place)(feed.inputs(0))
  save(weights, state.params)
  step = jax.jit(make_step(task, feed), donate_argnums=0, out_shardings=place)
  zeros = jax.jit(lambda: jax.tree.map(jnp.zeros_like, running), out_shardings=everywhere)

  def run(steps: int) -> float:
    nonlocal state
    sums, in_flight = zeros(), placement.InFlight()
    with jax.set_mesh(mesh):
      for number in range(steps):
        state, sums = step(state, sums, feed.inputs(number), key)
        in_flight.add(sums.bad_step)
    loss = jax.device_get(sums.metrics['loss'])
    return float(loss.total / loss.count)

  return run


def bare(family: Family) -> Callable[[int], float]:
  """Function that runs a number of steps of the task and nothing else, and returns the last loss."""
  task, batch, key = task_of(family), jax.device_put(family.batch()), jax.random.key(0)
  state = jax.jit(task.init)(random.stream(key, 'init'), batch)
  step = jax.jit(task.train_step, donate_argnums=0)

  def run(steps: int) -> float:
    nonlocal state
    for _ in range(steps):
      state, metrics = step(state, batch, key)
    loss = jax.device_get(metrics['loss'])
    return float(loss.total / loss.count)

  return run


def save(path: Path, params: PyTree) -> None:
  """Writes parameters by path, such as 'dense_0/kernel', as .npz."""
  leaves = jax.tree_util.tree_leaves_with_path(nn.unbox(params))
  np.savez(path, **{jax.tree_util.keystr(path, simple=True, separator='/'): leaf for path, leaf in leaves})


def task_of(family: Family) -> Task:
  """The family's task, with our models and objectives."""
  optimizer = make_optimizer(Optimizer('adam', lr=1e-3), steps=10**6)
  return supervised(family.build(sys.modules[__name__]), _objective(family.batch()['targets']), optimizer)


def _objective(targets: np.ndarray) -> Objective:
  if not np.issubdtype(targets.dtype, np.integer):
    return mean_squared_error()
  return next_token() if targets.ndim == 2 else softmax_cross_entropy()
