"""Examples with random access, and datasets of three splits."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol

import numpy as np


class Examples(Protocol):
  """A collection of examples with random access."""

  def __len__(self) -> int: ...

  def rows(self, indices: np.ndarray) -> dict[str, np.ndarray]:
    """The examples `indices` [batch], stacked into arrays [batch, ...]. Several threads may call this at once."""
    ...

  def fingerprint(self) -> str:
    """A hash that changes when the examples do."""
    ...


@dataclass(frozen=True)
class Arrays:
  """Examples in memory: arrays [examples, ...] by name, such as `inputs` and `targets`.

  Without arrays there are no examples: `Arrays({})` is what a task reads that makes its own, such as an agent.
  """

  arrays: Mapping[str, np.ndarray]

  def __len__(self) -> int:
    return len(next(iter(self.arrays.values()), ()))

  def rows(self, indices: np.ndarray) -> dict[str, np.ndarray]:
    return {name: array[indices] for name, array in self.arrays.items()}

  def fingerprint(self) -> str:
    arrays = sorted(self.arrays.items())
    return fingerprint_of(*(part for name, array in arrays for part in (f'{name} {array.dtype} {array.shape} ', array)))


def fingerprint_of(*parts: str | np.ndarray) -> str:
  """The first 16 hexadecimal digits of the SHA-256 of concatenated strings and arrays."""
  digest = hashlib.sha256()
  for part in parts:
    digest.update(part.encode() if isinstance(part, str) else np.ascontiguousarray(part).data)
  return digest.hexdigest()[:16]


def counting(rows: Mapping[str, np.ndarray], name: str = 'targets', mask: str = 'mask') -> np.ndarray:
  """Which entries of the array `name` are unmasked: bool, in the array's shape.

  A mask is [examples] or also has axes of `targets`. Inputs count if anything in their example does.
  """
  array = rows[name]
  mask = np.asarray(rows.get(mask, np.ones(len(array)))) > 0
  if name == 'inputs' or array.shape[: mask.ndim] != mask.shape:
    mask = mask.reshape(len(mask), -1).any(axis=1)
  return np.broadcast_to(np.expand_dims(mask, tuple(range(mask.ndim, array.ndim))), array.shape)


def not_finite(examples: Examples, index: np.ndarray) -> str:
  """Names the first example of `index` with an unmasked entry that is NaN or infinite; '' if there is none."""
  rows = examples.rows(index)
  for name, array in rows.items():
    if array.dtype.kind in 'fcV':  # V is bfloat16; importing JAX to ask would take seconds
      wrong = (~np.isfinite(array) & counting(rows, name)).reshape(len(index), -1).any(axis=1)
      if wrong.any():
        return f'example {index[wrong.argmax()]} has non-finite {name}'
  return ''


class Dataset(NamedTuple):
  """Three disjoint splits: for training, model selection and the final result."""

  train: Examples
  validation: Examples
  test: Examples
  class_names: tuple[str, ...] = ()  # empty for regression
  fitted: Mapping[str, Any] = MappingProxyType({})  # on the training split, to make all three: a scale, for example
