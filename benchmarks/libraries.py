"""The libraries to measure: how to start each, and the environment of its process."""

import ctypes.util
import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from benchmarks.families import Family

Run = Callable[[int], float]  # runs a number of steps and returns a loss: for one step, the loss before it


@dataclass(frozen=True)
class Library:
  """A library; `begin(family, weights)` imports what it needs."""

  about: str
  begin: Callable[[Family, Path], Run]
  package: str = ''  # that it needs, of the extra `peers`
  environment: Mapping[str, str] = field(default_factory=dict)

  @property
  def missing(self) -> bool:
    return bool(self.package) and importlib.util.find_spec(self.package) is None


def _ours(family: Family, weights: Path, bare: bool = False) -> Run:
  from benchmarks import ours
  from launch import cpu

  cpu.tune()
  return ours.bare(family) if bare else ours.as_launched(family, weights)


def _stock(family: Family, weights: Path) -> Run:
  from benchmarks import stock

  return stock.steps(family, weights)


def _torch(family: Family, weights: Path, **options: bool) -> Run:
  from benchmarks import torch_peer

  return torch_peer.steps(family, weights, **options)


def _keras(family: Family, weights: Path) -> Run:
  from benchmarks import keras_peer

  return keras_peer.steps(family, weights)


def _tcmalloc() -> dict[str, str]:
  """LD_PRELOAD for an allocator that keeps freed memory, as PyTorch's CPU tuning guide recommends."""
  found = ctypes.util.find_library('tcmalloc_minimal') or ctypes.util.find_library('tcmalloc')
  return {'LD_PRELOAD': found} if found else {}


ONE, TWO = {'JAX_NUM_CPU_DEVICES': '1'}, {'JAX_NUM_CPU_DEVICES': '2'}

LIBRARIES = {
  'ours': Library('ours, one device', _ours, environment=ONE),
  'ours_two': Library('ours, two devices', _ours, environment=TWO),
  'bare': Library('bare jit loop', partial(_ours, bare=True), environment=ONE),
  'stock': Library('Flax layers', _stock, environment=ONE),
  'torch': Library('PyTorch', _torch, 'torch'),
  'torch_tuned': Library('PyTorch tuned', partial(_torch, tuned=True), 'torch', _tcmalloc()),
  'torch_compile': Library('PyTorch compiled', partial(_torch, tuned=True, compiled=True), 'torch', _tcmalloc()),
  'keras': Library('Keras on JAX', _keras, 'keras', {**ONE, 'KERAS_BACKEND': 'jax'}),
}
