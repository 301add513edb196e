"""Standardization of the columns of a table."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from research.errors import DataError

UNSCALED = {'mean': 0.0, 'std': 1.0}  # stands in for a scale that is not fitted yet
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


def scale_of(numbers: Mapping[str, Sequence[float]]) -> Scale:
  """The scale whose `_asdict` was written to a workdir."""
  return Scale(**{name: np.asarray(values) for name, values in numbers.items()})


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
