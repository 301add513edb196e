"""Daily prices, and features for forecasting the next day's variance. Returns are in percent."""

from typing import NamedTuple

import numpy as np

from research.data import series
from research.data.examples import Dataset
from research.errors import check_count

FIRST_TEST_YEAR = 2011  # earlier years are for training and validation
MONTH = 22  # trading days


class Days(NamedTuple):
  """An index on each trading day: [days]."""

  dates: np.ndarray  # datetime64
  returns: np.ndarray  # close-to-close log returns, in percent
  ranges: np.ndarray  # log of high over low, including the previous close, in percent


def sp500_days() -> Days:
  """The S&P 500 from 1999 to 2018, as shipped with the package `arch`."""
  from arch.data import sp500  # takes two seconds

  frame = sp500.load()
  close, high, low = (frame[name].to_numpy() for name in ('Close', 'High', 'Low'))
  before, high, low = close[:-1], high[1:], low[1:]
  ranges = np.log(np.maximum(high, before) / np.minimum(low, before))
  return Days(frame.index.to_numpy()[1:], 100 * np.diff(np.log(close)), 100 * ranges)


def sp500(fold: int = 0, num_folds: int = 8, context: int = 22, ranges: bool = True) -> Dataset:
  """Squared returns of the S&P 500 given the days before: walk-forward, one year per fold.

  Fold 0 tests on 2011, fold 7 on 2018. The year before is for validation, earlier ones for training. `inputs` are
  [context, features], `targets` [1, 1] the squared return of the next day, in percent squared.

  Args:
    ranges: use daily highs and lows, or closes only.

  Raises:
    ConfigError: unknown fold.
  """
  days = sp500_days()
  ends = year_ends(days.dates, fold, num_folds)
  names, values = features(days, ranges)
  skipped = len(days.returns) - len(values)
  targets = np.square(days.returns)[skipped:, None]
  return series.windows(values, targets, [end - skipped for end in ends], context, 1, names)


def year_ends(dates: np.ndarray, fold: int, num_folds: int) -> list[int]:
  """Indices of the days where training, validation and test end."""
  years = dates.astype('datetime64[Y]').astype(int) + 1970
  last = years[-1] - FIRST_TEST_YEAR + 1
  check_count('num_folds', num_folds, at_most=last)
  check_count('fold', fold, at_least=0, at_most=num_folds - 1)
  tested = FIRST_TEST_YEAR + fold
  return [int(np.searchsorted(years, year)) for year in (tested - 1, tested, tested + 1)]


def features(days: Days, ranges: bool) -> tuple[tuple[str, ...], np.ndarray]:
  """Names and values [days, features] of the features known at the end of each day but the first `MONTH` - 1.

  The return and its negative part, as losses raise variance more than gains (Black 1976); log mean squared returns of a
  week and a month; log mean squared ranges of a day, a week and a month (Parkinson 1980), used like the realized
  variances of Corsi (2009).
  """
  last = len(days.returns) - MONTH + 1
  returns = {'return': days.returns[-last:], 'fall': np.minimum(days.returns[-last:], 0)}
  squares = {f'return_{steps}': _mean_square(days.returns, steps, last) for steps in (5, MONTH)}
  parkinson = {f'range_{steps}': _mean_square(days.ranges, steps, last) for steps in (1, 5, MONTH)}
  values = {**returns, **squares, **(parkinson if ranges else {})}
  return tuple(values), np.stack(list(values.values()), axis=1)


def _mean_square(values: np.ndarray, steps: int, last: int) -> np.ndarray:
  """Log mean square over the `steps` days up to each of the `last` days."""
  square = np.lib.stride_tricks.sliding_window_view(np.square(values), steps).mean(-1)
  return np.log(square[-last:] + 1e-4)  # (0.01 percent)^2, for weeks without a move
