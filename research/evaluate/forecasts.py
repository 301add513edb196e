"""Reports of forecasts, compared with the seasonal naive forecast.

A report's outputs are [examples, horizon, variables, 1 + quantiles], a point and its quantiles; rows have `inputs`
[examples, context, variables] and `targets` [examples, horizon, variables].
"""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from research.data.examples import counting
from research.errors import ConfigError
from research.evaluate.figures import ACCENT, FAINT, INK, SMALL, THICK, THIN, make_figure, plain
from research.evaluate.reports import Highest, Report, Streamed, Summed
from research.types import Rows

if TYPE_CHECKING:
  from matplotlib.figure import Figure

IN_A_ROW = 4  # variables
FORECAST = (2.6, 2.1)  # inches, of one variable of an example


def seasonal_naive(inputs: np.ndarray, season_length: int, horizon: int) -> np.ndarray:
  """Repeats the last `season_length` steps of `inputs` [examples, context, variables]: [examples, horizon, variables].

  Raises ConfigError if the context is shorter than a season.
  """
  if not 1 <= season_length <= inputs.shape[1]:
    raise ConfigError(f'season_length={season_length}: must be from 1 to the {inputs.shape[1]} steps of the context')
  return inputs[:, inputs.shape[1] - season_length + np.arange(horizon) % season_length]


def naive_errors(season_length: int) -> Report:
  """Report of the baseline `seasonal_naive_mse` and `seasonal_naive_mae`."""

  def terms(outputs: np.ndarray, rows: Rows) -> tuple[float, float, int]:
    counts = counting(rows)
    error = (seasonal_naive(rows['inputs'], season_length, outputs.shape[1]) - rows['targets']).astype(np.float64)
    return np.square(error).sum(where=counts), np.abs(error).sum(where=counts), counts.sum()

  def finish(sums: tuple[float, float, int]) -> Iterator[tuple[str, float]]:
    squares, sizes, count = sums
    yield 'seasonal_naive_mse', float(squares / count)
    yield 'seasonal_naive_mae', float(sizes / count)

  return Streamed('naive_errors', lambda size: Summed(terms, finish))


def error_over_horizon(season_length: int) -> Report:
  """Report that draws the mean squared error per step ahead, with that of the seasonal naive forecast."""

  def terms(outputs: np.ndarray, rows: Rows) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    targets, counts = rows['targets'], counting(rows)
    forecasts = seasonal_naive(rows['inputs'], season_length, outputs.shape[1]), outputs[..., 0]
    naive, own = (np.square(it - targets, dtype=np.float64).sum((0, 2), where=counts) for it in forecasts)
    return naive, own, counts.sum((0, 2))

  def finish(sums: tuple[np.ndarray, np.ndarray, np.ndarray]) -> Iterator[tuple[str, 'Figure']]:
    naive, own, count = sums
    figure, (axis,) = make_figure()
    for squares, color, label in ((naive, FAINT, 'seasonal naive'), (own, ACCENT, 'model')):
      axis.plot(1 + np.arange(len(count)), squares / count, color=color, label=label)
    axis.set(xlabel='steps ahead', ylabel='mean squared error', ylim=(0, None))
    axis.legend(frameon=False)
    plain(axis)
    yield 'error_over_horizon', figure

  return Streamed('error_over_horizon', lambda size: Summed(terms, finish))


def forecasts(columns: Sequence[str], number: int = 2) -> Report:
  """Report that draws forecasts of every variable at `number` times, evenly spread over the split."""

  def report(outputs: np.ndarray, rows: Rows) -> Iterator[tuple[str, 'Figure']]:
    yield 'forecasts', draw(columns, rows['inputs'], outputs, rows['targets'], 'standardized')

  def begin(size: int) -> Highest:
    chosen = np.linspace(0, size - 1, number + 2).round().astype(int)[1:-1]
    return Highest(report, lambda _, rows: np.where(np.isin(rows['index'], chosen), -rows['index'], -np.inf), number)

  return Streamed('forecasts', begin)


def draw(
  columns: Sequence[str], inputs: np.ndarray, outputs: np.ndarray, targets: np.ndarray | None = None, unit: str = ''
) -> 'Figure':
  """Draws each variable, each example in rows of its own; `targets` only if the future is known."""
  examples, horizon = outputs.shape[:2]
  rows = -(-len(columns) // IN_A_ROW)
  width = -(-len(columns) // rows)
  figure, axes = make_figure(width, rows * examples, FORECAST)
  for number, axis in enumerate(axes):
    example, variable = divmod(number, rows * width)
    if variable >= len(columns):
      axis.remove()
      continue
    future = None if targets is None else targets[example, :, variable]
    draw_one(axis, inputs[example, -2 * horizon :, variable], outputs[example, :, variable], future)
    axis.set_title(columns[variable], fontsize=SMALL, color=INK)
    axis.set_xlabel('steps ahead', fontsize=SMALL)
    axis.set_ylabel(unit if axis.get_subplotspec().is_first_col() else '', fontsize=SMALL)
  figure.legend(
    *axes[0].get_legend_handles_labels(), loc='outside lower center', ncols=4, frameon=False, fontsize=SMALL
  )
  return figure


def draw_one(axis, past: np.ndarray, outputs: np.ndarray, future: np.ndarray | None) -> None:
  """Draws a variable: its past [steps], the forecast [horizon, 1 + quantiles] and any known `future` [horizon]."""
  ahead = np.arange(1, len(outputs) + 1)
  axis.plot(np.arange(1 - len(past), 1), past, color=FAINT, linewidth=THIN, label='past')
  if future is not None:
    axis.plot(ahead, future, color=INK, linewidth=THIN, label='observed')
  if outputs.shape[1] > 2:
    axis.fill_between(ahead, outputs[:, 1], outputs[:, -1], color=ACCENT, alpha=0.2, linewidth=0, label='interval')
  axis.plot(ahead, outputs[:, 0], color=ACCENT, linewidth=THICK, label='forecast')
  plain(axis)
