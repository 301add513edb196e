"""Forecasts of a variance beside GARCH: which loses less, and whether that could be chance."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from research.evaluate.evaluator import Report
from research.evaluate.figures import ACCENT, FAINT, INK, SMALL, THICK, THIN, make_figure, plain
from research.types import Rows

if TYPE_CHECKING:
  from matplotlib.figure import Figure

WIDE = (8.0, 3.0)  # inches, of a picture of thousands of days


def garch(returns: np.ndarray, first: int, leverage: bool = False) -> np.ndarray:
  """Variances that GARCH(1,1) forecasts, from one day to the next, for `returns` [days] from the day `first` on.

  Constant mean and normal errors, fitted once to the days before `first` by the package `arch`; after that the
  recursion is fed with each day's return, as it comes (Bollerslev 1986). With `leverage` a fall raises the variance by
  a coefficient of its own (Glosten, Jagannathan and Runkle 1993).
  """
  from arch import arch_model  # slow to import

  model = arch_model(returns, mean='Constant', vol='GARCH', p=1, o=int(leverage), q=1, rescale=False)
  fitted = model.fit(last_obs=first, disp='off')
  forecasts = fitted.forecast(start=first - 1, reindex=False)  # of the day after each
  return forecasts.variance['h.1'].to_numpy()[:-1]


def qlike(variance: np.ndarray, squares: np.ndarray) -> np.ndarray:
  """Loss of each day, log h + y / h, for its forecast variance h and its squared return y: [days]."""
  return np.log(variance) + squares / variance


def diebold_mariano(difference: np.ndarray) -> float:
  """Statistic of the hypothesis that two forecasts lose the same; `difference` [days] is of their losses.

  Standard normal where it holds, below -1.96 where the first one loses less (Diebold and Mariano 1995). One-step
  forecasts, so the differences are taken to be uncorrelated.
  """
  return float(difference.mean() / (difference.std(ddof=1) / np.sqrt(len(difference))))


def against(dates: np.ndarray, returns: np.ndarray) -> Report:
  """Report on log variances of the last of the days `dates`, whose `returns` [days] GARCH is fitted to and fed with.

  The losses of GARCH without and with leverage as `garch_qlike` and `gjr_garch_qlike`, the statistic `diebold_mariano`
  of the model against the first, and a picture of these two as volatilities.
  """

  def report(log_variance: np.ndarray, rows: Rows) -> Iterator[tuple[str, 'float | Figure']]:
    squares, own = rows['targets'].ravel().astype(np.float64), np.exp(log_variance.astype(np.float64))
    first = len(returns) - len(own)
    yardstick, asymmetric = garch(returns, first), garch(returns, first, leverage=True)
    yield 'garch_qlike', float(qlike(yardstick, squares).mean())
    yield 'gjr_garch_qlike', float(qlike(asymmetric, squares).mean())
    difference = qlike(own, squares) - qlike(yardstick, squares)
    if np.ptp(difference) > 0:  # the statistic is not defined for a single day, nor for differences without variance
      yield 'diebold_mariano', diebold_mariano(difference)
    yield 'volatility', draw(dates[first:], squares, yardstick, own)

  return report


def draw(dates: np.ndarray, squares: np.ndarray, yardstick: np.ndarray, own: np.ndarray) -> 'Figure':
  """Two forecasts of a variance as volatilities, over the sizes of the returns: all [days]."""
  figure, (axis,) = make_figure(size=WIDE)
  axis.plot(dates, np.sqrt(squares), '.', color=FAINT, markersize=3, label='size of the return')
  axis.plot(dates, np.sqrt(yardstick), color=INK, linewidth=THIN, label='GARCH(1,1)')
  axis.plot(dates, np.sqrt(own), color=ACCENT, linewidth=THICK, label='network')
  axis.set(ylabel='volatility, % a day', ylim=(0, None))
  axis.legend(frameon=False, fontsize=SMALL)
  plain(axis)
  return figure
