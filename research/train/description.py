"""network.json of a workdir: from it and config.json the network is rebuilt, without the data."""

import hashlib
import json
import os
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from research.data.examples import Examples
from research.errors import WorkdirError
from research.paths import local
from research.types import Fitted

NAME = 'network.json'
Shapes = Mapping[str, jax.ShapeDtypeStruct]  # of arrays of one example


class Description(NamedTuple):
  """What a run writes before its first step."""

  inputs: Shapes  # that the network reads
  example: Shapes  # all arrays of a training example
  fitted: Fitted  # on the training data

  def batch(self, size: int) -> dict[str, jax.ShapeDtypeStruct]:
    """Shapes of a training batch."""
    leaves = {**self.example, 'index': jax.ShapeDtypeStruct((), np.int32)}
    return {name: jax.ShapeDtypeStruct((size, *leaf.shape), leaf.dtype) for name, leaf in leaves.items()}

  def to_json(self) -> str:
    """Text from which `from_json` makes the same description."""
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
  """What is read of `fitted` once it has been written: lists in place of arrays and tuples, every bit of a number."""
  return json.loads(json.dumps(dict(fitted), default=lambda array: array.tolist()))


def sha256_of(text: str) -> str:
  return hashlib.sha256(text.encode()).hexdigest()


def load_description(workdir: str | os.PathLike) -> Description:
  """What the run in `workdir` wrote before its first step.

  Raises WorkdirError where network.json is missing, or not the file whose sha256 is in environment.json.
  """
  path = local(workdir, 'workdir') / NAME
  try:
    text = path.read_text('utf-8')
    recorded = json.loads(path.with_name('environment.json').read_text())[-1][NAME]
  except FileNotFoundError as error:
    missing = f'{error.filename} is missing, which a run writes before its first step'
    raise WorkdirError(f'workdir {workdir}: {missing}; start the run again') from error
  except (ValueError, KeyError, IndexError, TypeError) as error:
    raise WorkdirError(f'{path}: cannot be checked against environment.json: {error!r}') from error
  if sha256_of(text) != recorded:
    raise WorkdirError(f'{path}: is not the file that the run wrote, whose sha256 is {recorded}; put it back')
  return Description.from_json(text)


def _shapes_as_json(shapes: Shapes) -> dict[str, Any]:
  return {name: {'shape': list(leaf.shape), 'dtype': str(leaf.dtype)} for name, leaf in shapes.items()}


def _shapes_from_json(content: Mapping[str, Any]) -> dict[str, jax.ShapeDtypeStruct]:
  return {name: jax.ShapeDtypeStruct(tuple(leaf['shape']), leaf['dtype']) for name, leaf in content.items()}
