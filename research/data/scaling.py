"""Standardization of the columns of a table."""

import json
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from research.errors import ConfigError, DataError

FILE = 'scale.json'  # in the workdir of a run
ROUNDING = 100  # ulps of its largest value by which a constant column may vary


class Scale(NamedTuple):
  """Mean and standard deviation of every variable: float64 [variables]."""

  mean: np.ndarray
  std: np.ndarray

  def standardized(self, values: np.ndarray) -> np.ndarray:
    """`values` [..., variables] standardized, in float32."""
    return ((values - self.mean) / self.std).astype(np.float32)

  def raw(self, values: np.ndarray) -> np.ndarray:
    """The inverse of `standardized`, for `values` [..., variables]."""
    return self.mean + self.std * values

  def to_json(self, columns: Sequence[str]) -> str:
    """The columns and the scale as text, for an exact `scale_from_json`."""
    return json.dumps({'columns': columns, 'mean': self.mean.tolist(), 'std': self.std.tolist()})


def scale_from_files(files: Mapping[str, str]) -> tuple[tuple[str, ...], Scale]:
  """`scale_from_json` of the files kept by a run. Raises ConfigError if the file is missing or damaged."""
  if FILE not in files:
    raise ConfigError(f'the workdir has no {FILE}, which a run writes at its start; give the workdir of a forecast')
  return scale_from_json(files[FILE])


def scale_from_json(text: str) -> tuple[tuple[str, ...], Scale]:
  """Names of the variables, and their scale. Raises ConfigError for invalid text."""
  try:
    fields = json.loads(text)
    columns, scale = fields['columns'], Scale(*(np.array(fields[name], float) for name in Scale._fields))
    shapes = {(len(columns),), *(numbers.shape for numbers in scale)}
    if len(shapes) > 1 or not np.isfinite(scale).all() or not (scale.std > 0).all():
      raise ValueError('must have a finite mean and a positive standard deviation for each column')
    return tuple(columns), scale
  except (ValueError, TypeError, KeyError) as error:
    raise ConfigError(f'{FILE} is damaged: {error!r}; restore the one that the run wrote') from error


def fit_scale(values: np.ndarray) -> Scale:
  """The scale of `values` [rows, variables]; a variable that is constant up to rounding is only centered.

  This is decided by its range, as the standard deviation of a constant has a rounding error itself. Raises DataError
  for values that are NaN or infinite.
  """
  if not np.isfinite(values).all():
    row, column = np.argwhere(~np.isfinite(values))[0]
    raise DataError(f'column {column}: is {values[row, column]} in row {row}; fill or drop it before scaling')
  values = values.astype(np.result_type(values, np.float32), copy=False)
  rounding = ROUNDING * np.finfo(values.dtype).eps * np.abs(values).max(axis=0)
  varies = np.ptp(values, axis=0) > rounding
  mean, std = (moment(values, axis=0, dtype=np.float64) for moment in (np.mean, np.std))
  return Scale(mean, np.where(varies, std, 1))
