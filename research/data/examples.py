"""Examples with random access, and data sets: what a builder returns."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np


class Examples(Protocol):
  """Any number of examples, each reached by its number."""

  def __len__(self) -> int: ...

  def rows(self, indices: np.ndarray) -> dict[str, np.ndarray]:
    """The examples of `indices` [batch], stacked: every array is [batch, ...]."""
    ...

  def fingerprint(self) -> str:
    """A hash that changes when the examples do."""
    ...


@dataclass(frozen=True)
class Arrays:
  """Examples in memory: arrays [examples, ...] by name, `inputs` and `targets` for a supervised set."""

  arrays: Mapping[str, np.ndarray]

  def __len__(self) -> int:
    return len(next(iter(self.arrays.values())))

  def rows(self, indices: np.ndarray) -> dict[str, np.ndarray]:
    return {name: array[indices] for name, array in self.arrays.items()}

  def fingerprint(self) -> str:
    digest = hashlib.sha256()
    for name, array in sorted(self.arrays.items()):
      digest.update(f'{name} {array.dtype} {array.shape} '.encode())
      digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()[:16]


class Dataset(NamedTuple):
  """Three disjoint parts. A model is fitted on the first, chosen on the second and reported on the third."""

  train: Examples
  validation: Examples
  test: Examples
  classes: tuple[str, ...] = ()  # names of the classes; empty for regression
