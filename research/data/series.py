"""Time series as examples: windows cut by their index out of one array, and a scale that the past alone has set."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from research.data.examples import Dataset
from research.errors import ConfigError, check_counts

FILE = 'scale.json'  # in the workdir of a run


class Scale(NamedTuple):
  """Mean and standard deviation of every variable: float64 [variables]."""

  mean: np.ndarray
  deviation: np.ndarray

  def standardised(self, values: np.ndarray) -> np.ndarray:
    """`values` [..., variables] in deviations from the mean, float32."""
    return ((values - self.mean) / self.deviation).astype(np.float32)

  def raw(self, values: np.ndarray) -> np.ndarray:
    """What `standardised` made `values` [..., variables] of."""
    return self.mean + self.deviation * values

  def to_json(self, columns: Sequence[str]) -> str:
    """Text from which `scale_from_json` makes the columns and the scale, to the bit."""
    return json.dumps({'columns': columns, 'mean': self.mean.tolist(), 'deviation': self.deviation.tolist()})


def scale_from_files(files: Mapping[str, str]) -> tuple[tuple[str, ...], Scale]:
  """What `scale_from_json` reads of the files that a run keeps. Raises ConfigError where it is missing or damaged."""
  if FILE not in files:
    raise ConfigError(f'the workdir has no {FILE}, which the run writes at its start; give the workdir of a forecast')
  return scale_from_json(files[FILE])


def scale_from_json(text: str) -> tuple[tuple[str, ...], Scale]:
  """Names of the variables, and their scale. Raises ConfigError for what `to_json` did not write."""
  try:
    fields = json.loads(text)
    columns, scale = fields['columns'], Scale(*(np.array(fields[name], float) for name in Scale._fields))
    shapes = {(len(columns),), *(numbers.shape for numbers in scale)}
    if len(shapes) > 1 or not np.isfinite(scale).all() or not (scale.deviation > 0).all():
      raise ValueError('not a finite mean and a deviation above 0 for each column')
    return tuple(columns), scale
  except (ValueError, TypeError, KeyError) as error:
    raise ConfigError(f'{FILE} is damaged: {error!r}; take the one that the run wrote') from error


def fit_scale(values: np.ndarray) -> Scale:
  """The scale of `values` [steps, variables]; a variable that never changes is only centred."""
  deviation = values.std(axis=0)
  return Scale(values.mean(axis=0), np.where(deviation > 0, deviation, 1))


@dataclass(frozen=True)
class Windows:
  """A window for every step that has `context` steps before it and `horizon` steps from it on.

  A row holds `inputs` [context, features], the steps before, and `targets` [horizon, outputs], the steps from it on.
  Windows overlap, so the series alone is kept and a row is cut out when it is asked for.
  """

  inputs: np.ndarray  # [steps, features]
  targets: np.ndarray  # [steps, outputs] of the same steps
  context: int
  horizon: int
  columns: tuple[str, ...]  # names of the features
  scale: Scale  # of the features

  def __len__(self) -> int:
    return max(0, len(self.inputs) - self.context - self.horizon + 1)

  def rows(self, indices: np.ndarray) -> dict[str, np.ndarray]:
    first = np.asarray(indices)[:, None]
    past, future = first + np.arange(self.context), first + np.arange(self.context, self.context + self.horizon)
    return {'inputs': self.inputs[past], 'targets': self.targets[future]}

  def fingerprint(self) -> str:
    digest = hashlib.sha256(f'{self.context} {self.horizon} {self.inputs.shape} {self.targets.shape}'.encode())
    for array in (self.inputs, self.targets):
      digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()[:16]


def windows(
  values: np.ndarray,
  targets: np.ndarray | None,
  ends: Sequence[int],
  context: int,
  horizon: int,
  columns: tuple[str, ...],
) -> Dataset:
  """Windows of three parts of a series, which end before the steps `ends`; the scale is that of the first part.

  What is forecast lies within a part. The steps before it may lie in the part before, as they would be known by then.

  Args:
    values: features [steps, features], standardised here.
    targets: what is forecast [steps, outputs], not rescaled; None for the standardised features themselves.

  Raises:
    ConfigError: an end before the one before it or beyond the series, or a part too short for a single window.
  """
  check_counts(context=context, horizon=horizon)
  if list(ends) != sorted({*ends}) or not 0 < ends[0] <= ends[-1] <= len(values):
    raise ConfigError(f'ends={tuple(ends)}: must increase, from 1 to at most the {len(values)} steps of the series')
  scale = fit_scale(values[: ends[0]])
  inputs = scale.standardised(values)
  targets = inputs if targets is None else targets.astype(np.float32)
  starts = (0, *(max(0, end - context) for end in ends[:-1]))
  parts = []
  for name, start, end in zip(('training', 'validation', 'test'), starts, ends, strict=True):
    part = Windows(inputs[start:end], targets[start:end], context, horizon, columns, scale)
    if not len(part):
      raise ConfigError(
        f'context={context}, horizon={horizon}: must fit into the {end - start} steps of the {name} part'
      )
    parts.append(part)
  return Dataset(*parts)
