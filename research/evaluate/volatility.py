"""Variance forecasts compared with GARCH: losses and their significance."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from research.evaluate.figures import ACCENT, FAINT, INK, SMALL, THICK, THIN, make_figure, plain
from research.evaluate.reports import Report
from research.types import Rows

if TYPE_CHECKING:
  from matplotlib.figure import Figure

WIDE = (8.0, 3.0)  # inches


def garch(returns: np.ndarray, first: int, leverage: bool = False) -> np.ndarray:
  """One-day-ahead variance forecasts of GARCH(1,1) for `returns` [days] from the day `first` on.

  Constant mean and normal errors, fitted once to the days before `first` by the package `arch`; after that the
  recursion is updated with each day's return (Bollerslev 1986). `leverage` adds a separate coefficient for negative
  returns (Glosten, Jagannathan and Runkle 1993).
  """
  from arch import arch_model  # slow to import

  model = arch_model(returns, mean='Constant', vol='GARCH', p=1, o=int(leverage), q=1, rescale=False)
  fitted = model.fit(last_obs=first, disp='off')
  forecasts = fitted.forecast(start=first - 1, reindex=False)  # of the next day
  return forecasts.variance['h.1'].to_numpy()[:-1]


def qlike(variance: np.ndarray, squares: np.ndarray) -> np.ndarray:
  """Loss per day, log h + y / h, of a variance forecast h and a squared return y: [days]."""
  return np.log(variance) + squares / variance


def diebold_mariano(difference: np.ndarray) -> float:
  """Diebold-Mariano statistic of equal loss of two forecasts, given the `difference` [days] of their losses.

  Standard normal under the hypothesis; below -1.96 the first forecast is better (Diebold and Mariano 1995). As these
  are one-step forecasts, differences are assumed uncorrelated.
  """
  return float(difference.mean() / (difference.std(ddof=1) / np.sqrt(len(difference))))


def against(dates: np.ndarray, returns: np.ndarray) -> Report:
  """Report on log variances of the last days of `dates`; GARCH is fitted to and updated with `returns` [days].

  Yields the losses of GARCH without and with leverage, `garch_qlike` and `gjr_garch_qlike`, the statistic
  `diebold_mariano` of the model against the first, and a figure of both as volatilities.
  """

  def report(log_variance: np.ndarray, rows: Rows) -> Iterator[tuple[str, 'float | Figure']]:
    squares, own = rows['targets'].ravel().astype(np.float64), np.exp(log_variance.astype(np.float64))
    first = len(returns) - len(own)
    yardstick, asymmetric = garch(returns, first), garch(returns, first, leverage=True)
    yield 'garch_qlike', float(qlike(yardstick, squares).mean())
    yield 'gjr_garch_qlike', float(qlike(asymmetric, squares).mean())
    difference = qlike(own, squares) - qlike(yardstick, squares)
    if np.ptp(difference) > 0:  # undefined for a single day or constant differences
      yield 'diebold_mariano', diebold_mariano(difference)
    yield 'volatility', draw(dates[first:], squares, yardstick, own)

  return report


def draw(dates: np.ndarray, squares: np.ndarray, yardstick: np.ndarray, own: np.ndarray) -> 'Figure':
  """Draws two variance forecasts as volatilities, over absolute returns: all [days]."""
  figure, (axis,) = make_figure(size=WIDE)
  axis.plot(dates, np.sqrt(squares), '.', color=FAINT, markersize=3, label='absolute return')
  axis.plot(dates, np.sqrt(yardstick), color=INK, linewidth=THIN, label='GARCH(1,1)')
  axis.plot(dates, np.sqrt(own), color=ACCENT, linewidth=THICK, label='network')
  axis.set(xlabel='date', ylabel='daily volatility (%)', ylim=(0, None))
  figure.legend(loc='outside lower center', ncols=3, frameon=False, fontsize=SMALL)
  plain(axis)
  return figure
