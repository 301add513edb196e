"""A training step of a recurrent layer, ours and torch's, each measurement in a process of its own, in turn.

python -m launch.benchmark --peer=torch --rounds=5

One layer of 256 units on 32 sequences of 64 steps of 256 features, squared error of all outputs, Adam, float32. Torch
runs with the allocator it comes with. Of the extra `peers`.
"""

import importlib.util
import itertools
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl import flags

from launch import app
from research.errors import ConfigError, RunError
from research.models.rnn import RNN

LIBRARY = flags.DEFINE_enum('library', 'strata', ['strata', 'torch'], 'whose layer is measured')
CELL = flags.DEFINE_enum('cell', 'lstm', ['lstm', 'gru'], 'kind of layer')
UNITS, BATCH, LENGTH = 256, 32, 64


def main() -> None:
  steps = strata_steps if LIBRARY.value == 'strata' else torch_steps
  print(seconds_of(steps(CELL.value)))


def compare(rounds: int) -> str:
  """A line for each cell: median times of a step, and of the ratios of times measured one after the other."""
  if importlib.util.find_spec('torch') is None:
    raise ConfigError("--peer=torch: torch is not installed; pip install -e '.[peers]'")
  return '\n'.join(_compared(cell, rounds) for cell in ('lstm', 'gru'))


def _compared(cell: str, rounds: int) -> str:
  times = {'strata': [], 'torch': []}
  for library in itertools.chain.from_iterable(itertools.repeat(tuple(times), rounds)):
    command = [sys.executable, '-m', 'launch.benchmark_peer', f'--library={library}', f'--cell={cell}']
    run = subprocess.run(command, stdout=subprocess.PIPE, text=True)  # its messages are ours
    if run.returncode:
      raise RunError(f'{" ".join(command[1:])} ended with {run.returncode}; see above')
    times[library].append(float(run.stdout))
  ratios = [ours / theirs for ours, theirs in zip(*times.values(), strict=True)]
  ours, theirs = (f'{1e3 * statistics.median(values):.1f}' for values in times.values())
  spread = f'median {statistics.median(ratios):.2f}, from {min(ratios):.2f} to {max(ratios):.2f}'
  return f'{cell}: {ours} ms a step, torch {theirs} ms; ratio of times: {spread}'


def strata_steps(cell: str) -> Callable[[int], None]:
  """Function that takes a number of steps."""
  model, optimizer, (inputs, targets) = RNN(UNITS, cell=cell), optax.adam(1e-3), map(jnp.asarray, _data())
  params = jax.jit(model.init)(jax.random.key(0), inputs)
  state = (params, optimizer.init(params))

  def loss(params, inputs, targets):
    return jnp.square(model.apply(params, inputs)[0] - targets).mean()

  def step(params, moments, inputs, targets):
    updates, moments = optimizer.update(jax.grad(loss)(params, inputs, targets), moments, params)
    return optax.apply_updates(params, updates), moments

  step = jax.jit(step, donate_argnums=(0, 1))

  def run(steps: int) -> None:
    nonlocal state
    for _ in range(steps):
      state = step(*state, inputs, targets)
    jax.block_until_ready(state)

  return run


def torch_steps(cell: str) -> Callable[[int], None]:
  """Function that takes a number of steps."""
  import torch

  layer = {'lstm': torch.nn.LSTM, 'gru': torch.nn.GRU}[cell](UNITS, UNITS, batch_first=True)
  optimizer, (inputs, targets) = torch.optim.Adam(layer.parameters(), 1e-3), map(torch.tensor, _data())

  def run(steps: int) -> None:
    for _ in range(steps):
      optimizer.zero_grad()
      (layer(inputs)[0] - targets).square().mean().backward()
      optimizer.step()

  return run


def seconds_of(run: Callable[[int], None], steps: int = 20, blocks: int = 5) -> float:
  """Median time of a step over blocks of steps, the first left out."""
  times = []
  for _ in range(blocks + 1):
    start = time.perf_counter()
    run(steps)
    times.append((time.perf_counter() - start) / steps)
  return statistics.median(times[1:])


def _data() -> tuple[np.ndarray, np.ndarray]:
  """Inputs and targets [batch, length, units]."""
  rng = np.random.default_rng(0)
  return tuple(rng.normal(size=(2, BATCH, LENGTH, UNITS)).astype(np.float32))


if __name__ == '__main__':
  app.run(main)
