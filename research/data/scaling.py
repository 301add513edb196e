"""Mean and standard deviation of the columns of a table, and what the columns are in units of these."""

import json
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from research.errors import ConfigError, DataError

FILE = 'scale.json'  # in the workdir of a run
ROUNDING = 100  # units in the last place of its largest value, by which a constant column may vary


class Scale(NamedTuple):
  """Mean and standard deviation of every variable: float64 [variables]."""

  mean: np.ndarray
  std: np.ndarray

  def standardized(self, values: np.ndarray) -> np.ndarray:
    """`values` [..., variables] in deviations from the mean, float32."""
    return ((values - self.mean) / self.std).astype(np.float32)

  def raw(self, values: np.ndarray) -> np.ndarray:
    """What `standardized` made `values` [..., variables] of."""
    return self.mean + self.std * values

  def to_json(self, columns: Sequence[str]) -> str:
    """Text from which `scale_from_json` makes the columns and the scale, to the bit."""
    return json.dumps({'columns': columns, 'mean': self.mean.tolist(), 'std': self.std.tolist()})


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
    if len(shapes) > 1 or not np.isfinite(scale).all() or not (scale.std > 0).all():
      raise ValueError('not a finite mean and a deviation above 0 for each column')
    return tuple(columns), scale
  except (ValueError, TypeError, KeyError) as error:
    raise ConfigError(f'{FILE} is damaged: {error!r}; restore the one that the run wrote') from error


def fit_scale(values: np.ndarray) -> Scale:
  """The scale of `values` [rows, variables]; a variable that varies by rounding alone is only centered.

  Whether it does is told by its range: the standard deviation of a constant has a rounding error of its own.
  Raises DataError for a value that is NaN or infinite, which would make its whole variable NaN.
  """
  if not np.isfinite(values).all():
    row, column = np.argwhere(~np.isfinite(values))[0]
    raise DataError(f'column {column}: is {values[row, column]} in row {row}; fill or drop it before it is scaled')
  values = values.astype(np.result_type(values, np.float32), copy=False)
  rounding = ROUNDING * np.finfo(values.dtype).eps * np.abs(values).max(axis=0)
  varies = np.ptp(values, axis=0) > rounding
  mean, std = (moment(values, axis=0, dtype=np.float64) for moment in (np.mean, np.std))
  return Scale(mean, np.where(varies, std, 1))
