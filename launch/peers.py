"""Training steps of one recurrent layer, by our code and by torch's, on the same numbers."""

import importlib.util
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from research.data.placement import split
from research.errors import ConfigError
from research.models.rnn import RNN
from research.train.mesh import MeshShape, make_mesh, replicated

UNITS, BATCH, LENGTH = 256, 32, 64


def strata_steps(cell: str) -> Callable[[int], Any]:
  """Function that takes a number of steps, on all devices, and gives the parameters."""
  model, optimizer, mesh = RNN(UNITS, cell=cell), optax.adam(1e-3), make_mesh(MeshShape(), BATCH)
  inputs, targets = jax.device_put(_data(), split(mesh))
  params = jax.device_put(jax.jit(model.init)(jax.random.key(0), inputs), replicated(mesh))
  state = (params, optimizer.init(params))

  def loss(params, inputs, targets):
    return jnp.square(model.apply(params, inputs)[0] - targets).mean()

  def step(params, moments, inputs, targets):
    updates, moments = optimizer.update(jax.grad(loss)(params, inputs, targets), moments, params)
    return optax.apply_updates(params, updates), moments

  step = jax.jit(step, donate_argnums=(0, 1))

  def run(steps: int) -> Any:
    nonlocal state
    for _ in range(steps):
      state = step(*state, inputs, targets)
    return jax.block_until_ready(state)[0]

  return run


def torch_steps(cell: str) -> Callable[[int], Any]:
  """Function that takes a number of steps, and gives the parameters."""
  check_torch()
  import torch

  layer = {'lstm': torch.nn.LSTM, 'gru': torch.nn.GRU}[cell](UNITS, UNITS, batch_first=True)
  optimizer, (inputs, targets) = torch.optim.Adam(layer.parameters(), 1e-3), map(torch.tensor, _data())

  def run(steps: int) -> Any:
    for _ in range(steps):
      optimizer.zero_grad()
      (layer(inputs)[0] - targets).square().mean().backward()
      optimizer.step()
    return dict(layer.named_parameters())

  return run


def check_torch() -> None:
  """Raises ConfigError where torch is not installed."""
  if importlib.util.find_spec('torch') is None:
    raise ConfigError("--peer=torch: torch is not installed; pip install -e '.[peers]'")


def _data() -> tuple[np.ndarray, np.ndarray]:
  """Inputs and targets [batch, length, units]."""
  rng = np.random.default_rng(0)
  return tuple(rng.normal(size=(2, BATCH, LENGTH, UNITS)).astype(np.float32))
