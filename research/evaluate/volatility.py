"""Forecasts of a variance beside GARCH: which loses less, and whether that could be chance."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import numpy as np

from research.evaluate.evaluator import Report
from research.evaluate.figures import ACCENT, FAINT, INK, make_figure, plain

if TYPE_CHECKING:
  from matplotlib.figure import Figure

Rows = Mapping[str, np.ndarray]


def garch(returns: np.ndarray, first: int) -> np.ndarray:
  """Variances that GARCH(1,1) forecasts, from one day to the next, for `returns` [days] from the day `first` on.

  Constant mean and normal errors, fitted once to the days before `first` by the package `arch`; after that the
  recursion is fed with each day's return, as it comes (Bollerslev 1986).
  """
  from arch import arch_model  # slow to import

  fitted = arch_model(returns, mean='Constant', vol='GARCH', p=1, q=1, rescale=False).fit(last_obs=first, disp='off')
  forecasts = fitted.forecast(horizon=1, start=first - 1, reindex=False)
  return forecasts.variance.to_numpy()[:-1, 0]


def qlike(variance: np.ndarray, squares: np.ndarray) -> np.ndarray:
  """Loss of each day, log h + y / h, for its forecast variance h and its squared return y: [days]."""
  return np.log(variance) + squares / variance


def diebold_mariano(difference: np.ndarray) -> float:
  """Statistic of the hypothesis that two forecasts lose the same; `difference` [days] is of their losses.

  Standard normal where it holds, below -1.96 where the first one loses less (Diebold and Mariano 1995). One-step
  forecasts, so the differences are taken to be uncorrelated.
  """
  return float(difference.mean() / (difference.std(ddof=1) / np.sqrt(len(difference))))


def against(dates: np.ndarray, variances: np.ndarray) -> Report:
  """Report on log variances [days], of the days `dates`, and on GARCH's `variances` of the same days.

  `garch_qlike`, the statistic `diebold_mariano`, and a picture of both as volatilities over the year.
  """

  def report(log_variance: np.ndarray, rows: Rows) -> Iterator[tuple[str, 'float | Figure']]:
    squares, own = rows['targets'].ravel().astype(np.float64), np.exp(log_variance.astype(np.float64))
    losses, garch_losses = qlike(own, squares), qlike(variances, squares)
    yield 'garch_qlike', float(garch_losses.mean())
    yield 'diebold_mariano', diebold_mariano(losses - garch_losses)
    figure, (axis,) = make_figure(1, 1, (8, 3))
    axis.plot(dates, np.sqrt(squares), '.', color=FAINT, markersize=3, label='size of the return')
    axis.plot(dates, np.sqrt(variances), color=INK, linewidth=1, label='GARCH(1,1)')
    axis.plot(dates, np.sqrt(own), color=ACCENT, linewidth=1.2, label='network')
    axis.set(ylabel='volatility, % a day', ylim=(0, None))
    axis.legend(frameon=False, fontsize=8)
    plain(axis)
    yield 'volatility', figure

  return report
