"""network.json of a workdir: together with config.json it is enough to rebuild the network, without the data."""

import hashlib
import json
import os
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from research.data.examples import Examples
from research.errors import ConfigError, WorkdirError
from research.paths import local
from research.types import Fitted

NAME = 'network.json'
Shapes = Mapping[str, jax.ShapeDtypeStruct]  # of arrays of one example


class Description(NamedTuple):
  """What a run writes before its first step."""

  inputs: Shapes  # of the arrays that the network reads
  example: Shapes  # of all arrays of a training example
  fitted: Fitted

  def batch(self, size: int) -> dict[str, jax.ShapeDtypeStruct]:
    """Shapes of a training batch."""
    leaves = {**self.example, 'index': jax.ShapeDtypeStruct((), np.int32)}
    return {name: jax.ShapeDtypeStruct((size, *leaf.shape), leaf.dtype) for name, leaf in leaves.items()}

  def to_json(self) -> str:
    """Text for `from_json`."""
    shapes = {name: _shapes_as_json(getattr(self, name)) for name in ('inputs', 'example')}
    return json.dumps({**shapes, 'fitted': as_json(self.fitted)}, indent=2) + '\n'

  @classmethod
  def from_json(cls, text: str) -> 'Description':
    content = json.loads(text)
    shapes = {name: _shapes_from_json(content[name]) for name in ('inputs', 'example')}
    return cls(**shapes, fitted=content['fitted'])


def shapes_of(examples: Examples) -> dict[str, jax.ShapeDtypeStruct]:
  """Shapes and dtypes of one example, by array."""
  rows = examples.rows(np.zeros(1, np.int32))
  return {name: jax.ShapeDtypeStruct(array.shape[1:], array.dtype) for name, array in rows.items()}


def as_json(fitted: Fitted) -> dict[str, Any]:
  """`fitted` as it is read back from network.json: arrays and tuples become lists, numbers keep every bit.

  Raises ConfigError for a value that JSON cannot hold.
  """
  for name, value in fitted.items():
    try:
      json.dumps(value, default=_as_list)
    except (TypeError, ValueError) as error:
      needed = 'must be made of strings, numbers, lists, dicts and arrays'
      raise ConfigError(f'fitted[{name!r}]: is a {type(value).__name__}; {needed} ({error})') from error
  return json.loads(json.dumps(dict(fitted), default=_as_list))


def _as_list(value: Any) -> Any:
  if not isinstance(value, (np.ndarray, np.generic, jax.Array)):
    raise TypeError(f'a {type(value).__name__} is none of these')
  return value.tolist()


def sha256_of(text: str) -> str:
  return hashlib.sha256(text.encode()).hexdigest()


def load_description(workdir: str | os.PathLike) -> Description:
  """What the run in `workdir` wrote before its first step.

  Raises WorkdirError if network.json is missing, or is not the file whose sha256 is in environment.json.
  """
  path = local(workdir, 'workdir') / NAME
  try:
    text = path.read_text('utf-8')
    recorded = json.loads(path.with_name('environment.json').read_text())[-1][NAME]
  except FileNotFoundError as error:
    missing = f'{error.filename} is missing, which a run writes before its first step'
    raise WorkdirError(f'workdir {workdir}: {missing}; run the same training command again') from error
  except (ValueError, KeyError, IndexError, TypeError) as error:
    raise WorkdirError(f'{path}: cannot be checked against environment.json: {error!r}') from error
  if sha256_of(text) != recorded:
    raise WorkdirError(f'{path}: is not the file that the run wrote, whose sha256 is {recorded}; restore it')
  return Description.from_json(text)


def _shapes_as_json(shapes: Shapes) -> dict[str, Any]:
  return {name: {'shape': list(leaf.shape), 'dtype': str(leaf.dtype)} for name, leaf in shapes.items()}


def _shapes_from_json(content: Mapping[str, Any]) -> dict[str, jax.ShapeDtypeStruct]:
  return {name: jax.ShapeDtypeStruct(tuple(leaf['shape']), leaf['dtype']) for name, leaf in content.items()}
