"""Daily prices, and what of the past a forecast of the next day's variance may see. Returns are in per cent."""

from typing import NamedTuple

import numpy as np

from research.data import series
from research.data.examples import Dataset
from research.errors import check_count

FIRST_TEST_YEAR = 2011  # the years before it train and validate the first fold
MONTH = 22  # trading days


class Days(NamedTuple):
  """What an index did on each trading day: [days]."""

  dates: np.ndarray  # datetime64
  returns: np.ndarray  # logarithmic, from close to close, in per cent
  ranges: np.ndarray  # log of the highest over the lowest price, the close before included, in per cent


def sp500_days() -> Days:
  """The S&P 500 from 1999 to 2018, as the package `arch` carries it."""
  from arch.data import sp500  # takes two seconds, which only this set should cost

  frame = sp500.load()
  close, high, low = (frame[name].to_numpy() for name in ('Close', 'High', 'Low'))
  before, high, low = close[:-1], high[1:], low[1:]
  ranges = np.log(np.maximum(high, before) / np.minimum(low, before))
  return Days(frame.index.to_numpy()[1:], 100 * np.diff(np.log(close)), 100 * ranges)


def sp500(fold: int = 0, num_folds: int = 8, context: int = 22, ranges: bool = True) -> Dataset:
  """Squared returns of the S&P 500 by the days before: walk-forward, one year a fold.

  Fold 0 tests on 2011, fold 7 on 2018. The year before the tested one validates, all before that trains. `inputs` are
  [context, features], `targets` [1, 1] the squared return of the day after, in per cent squared.

  Args:
    ranges: whether highest and lowest prices are seen, or closes alone.

  Raises:
    ConfigError: no such fold.
  """
  days = sp500_days()
  ends = year_ends(days.dates, fold, num_folds)
  names, values = features(days, ranges)
  skipped = len(days.returns) - len(values)
  targets = np.square(days.returns)[skipped:, None]
  return series.windows(values, targets, [end - skipped for end in ends], context, 1, names)


def year_ends(dates: np.ndarray, fold: int, num_folds: int) -> list[int]:
  """Numbers of the days before which training, validation and test end; a year ends where the next begins."""
  years = dates.astype('datetime64[Y]').astype(int) + 1970
  last = years[-1] - FIRST_TEST_YEAR + 1
  check_count('num_folds', num_folds, at_most=last)
  check_count('fold', fold, at_least=0, at_most=num_folds - 1)
  tested = FIRST_TEST_YEAR + fold
  return [int(np.searchsorted(years, year)) for year in (tested - 1, tested, tested + 1)]


def features(days: Days, ranges: bool) -> tuple[tuple[str, ...], np.ndarray]:
  """Names and values [days, features] of what is known at the end of each day but the first `MONTH` - 1.

  The return and its fall below zero, which raises variance more than a rise does (Black 1976); the logarithms of mean
  squared returns of a week and a month; those of mean squared ranges of a day, a week and a month (Parkinson 1980),
  as Corsi (2009) takes realized variances.
  """
  last = len(days.returns) - MONTH + 1
  returns = {'return': days.returns[-last:], 'fall': np.minimum(days.returns[-last:], 0)}
  squares = {f'return_{steps}': _mean_square(days.returns, steps, last) for steps in (5, MONTH)}
  parkinson = {f'range_{steps}': _mean_square(days.ranges, steps, last) for steps in (1, 5, MONTH)}
  values = {**returns, **squares, **(parkinson if ranges else {})}
  return tuple(values), np.stack(list(values.values()), axis=1)


def _mean_square(values: np.ndarray, steps: int, last: int) -> np.ndarray:
  """Logarithm of the mean square of the `steps` days up to each of the `last` days."""
  square = np.lib.stride_tricks.sliding_window_view(np.square(values), steps).mean(-1)
  return np.log(square[-last:] + 1e-4)  # a hundredth of a per cent, for weeks without a move
