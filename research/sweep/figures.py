"""A figure of the trials of a sweep: a scatter plot for one field, parallel coordinates for several."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from research.evaluate.figures import ACCENT, FAINT, INK, SMALL, THIN, make_figure, plain

if TYPE_CHECKING:
  from matplotlib.figure import Figure

WIDE = 20  # ratio of largest to smallest value from which a scale is logarithmic
APART = 0.07  # minimal distance of labels, as a fraction of the scale


class Scale(NamedTuple):
  """Positions of values between 0 and 1, and the ticks."""

  places: np.ndarray
  ticks: Sequence[tuple[float, str]]


def trials(fields: Mapping[str, Sequence[Any]], values: Sequence[float], label: str) -> 'Figure':
  """Draws the trials of a sweep, the best first.

  Args:
    fields: values of each field, one for each trial.
    values: results of the trials, NaN for those that failed.
    label: name of `values`.
  """
  if len(fields) == 1:
    ((name, options),) = fields.items()
    return _points(name, options, np.asarray(values), label)
  return _parallel(fields, np.asarray(values), label)


def scale_of(options: Sequence[Any]) -> Scale:
  """A scale of numbers, logarithmic if they span a factor of 20 or more; other values in order of appearance."""
  if _are_numbers(options):
    return _by_size(np.asarray(options, float))
  texts = list(dict.fromkeys(map(str, options)))
  places = (np.arange(len(texts)) + 0.5) / len(texts)
  return Scale(places[[texts.index(str(value)) for value in options]], list(zip(places, texts, strict=True)))


def _are_numbers(options: Sequence[Any]) -> bool:
  return all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in options)


def _by_size(numbers: np.ndarray) -> Scale:
  """NaN stays NaN. Ticks are at the numbers themselves if they are few and far apart, else at round numbers."""
  least, greatest = np.nanmin(numbers), np.nanmax(numbers)
  logarithmic = 0 < least <= greatest / WIDE
  low, high = np.log([least, greatest]) if logarithmic else (least, greatest)

  def place(values: np.ndarray) -> np.ndarray:
    return ((np.log(values) if logarithmic else values) - low) / (high - low) if high > low else 0.5 + 0 * values

  ticks = np.unique(numbers[~np.isnan(numbers)])
  if len(ticks) > 6 or (np.diff(place(ticks)) < APART).any():
    ticks = _round_numbers(least, greatest, logarithmic)
  return Scale(place(numbers), [(float(place(tick)), f'{tick:.4g}') for tick in ticks])


def _round_numbers(least: float, greatest: float, logarithmic: bool) -> np.ndarray:
  from matplotlib.ticker import LogLocator, MaxNLocator  # slow, as in figures.py

  locator = LogLocator(subs=(1, 3)) if logarithmic else MaxNLocator(5)
  ticks = np.asarray(locator.tick_values(least, greatest))
  return ticks[(ticks >= least) & (ticks <= greatest)]


def _points(name: str, options: Sequence[Any], values: np.ndarray, label: str) -> 'Figure':
  figure, (axis,) = make_figure()
  scale, ended = scale_of(options), ~np.isnan(values)
  if _are_numbers(options) and len(set(options)) == len(options):  # a curve is a function
    order = np.argsort(scale.places)
    order = order[ended[order]]
    axis.plot(scale.places[order], values[order], color=FAINT, linewidth=THIN, zorder=1)
  axis.scatter(scale.places[ended], values[ended], s=26, color=INK, zorder=2)
  axis.scatter(scale.places[:1], values[:1], s=60, color=ACCENT, zorder=3, label='best')
  if not ended.all():
    failed = scale.places[~ended]
    bottom = axis.get_xaxis_transform()  # data along x, the axis from 0 to 1 along y
    axis.scatter(failed, np.full(len(failed), 0.03), marker='x', color=FAINT, label='failed', transform=bottom)
  axis.set_xticks(*zip(*scale.ticks, strict=True))
  axis.set(xlim=(-0.06, 1.06), xlabel=name, ylabel=label)
  axis.legend(frameon=False, fontsize=SMALL)
  plain(axis)
  return figure


def _parallel(fields: Mapping[str, Sequence[Any]], values: np.ndarray, label: str) -> 'Figure':
  from matplotlib.colors import LinearSegmentedColormap

  figure, (axis,) = make_figure(size=(max(4.8, 1.7 * (len(fields) + 1)), 3.6))
  scales = [scale_of(options) for options in fields.values()] + [scale_of(values.tolist())]
  ended = int((~np.isnan(values)).sum())
  shades = LinearSegmentedColormap.from_list('rank', [INK, '#d5dae0'])
  for rank in reversed(range(len(values))):
    x, y = smooth([scale.places[rank] for scale in scales])
    style = {'color': shades(rank / max(ended - 1, 1)), 'linewidth': THIN}
    if math.isnan(values[rank]):
      style |= {'color': FAINT, 'linestyle': ':'}
    axis.plot(x, y, **(style | ({'color': ACCENT, 'linewidth': 2.6} if rank == 0 else {})))
  lines = {'best': {'color': ACCENT, 'linewidth': 2.6}, 'others, the darker the better': {'color': INK}}
  if ended < len(values):
    lines['failed'] = {'color': FAINT, 'linestyle': ':'}
  for text, style in lines.items():
    axis.plot([], [], label=text, **({'linewidth': THIN} | style))
  figure.legend(loc='outside lower center', ncols=len(lines), frameon=False, fontsize=SMALL)
  for place, (name, scale) in enumerate(zip([*fields, label], scales, strict=True)):
    _draw_scale(axis, place, name, scale, -1 if place < len(fields) else 1)
  axis.set(xlim=(-0.35, len(fields) + 0.35), ylim=(-0.05, 1.12))
  axis.set_axis_off()
  return figure


def smooth(places: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
  """A smooth curve through positions at 0, 1, 2, ..., flat at each of them; it ends before the first NaN."""
  places = np.asarray(places)[: next((n for n, place in enumerate(places) if math.isnan(place)), len(places))]
  x = np.linspace(0, len(places) - 1, 40 * (len(places) - 1) + 1)
  left = np.minimum(x.astype(int), max(len(places) - 2, 0))
  part = x - left
  return x, places[left] + (3 * part**2 - 2 * part**3) * (places[np.minimum(left + 1, len(places) - 1)] - places[left])


def _draw_scale(axis, place: float, name: str, scale: Scale, side: int) -> None:
  """Draws a vertical scale with labels on the left (`side` -1) or right (1)."""
  axis.plot([place, place], [0, 1], color=INK, linewidth=THIN, zorder=3)
  axis.text(place, 1.06, name, ha='center', va='bottom', fontsize=SMALL, color=INK)
  box = {'facecolor': 'white', 'edgecolor': 'none', 'alpha': 0.75, 'pad': 0.6}
  for height, text in scale.ticks:
    axis.plot([place, place + 0.02 * side], [height, height], color=INK, linewidth=THIN, zorder=3)
    align = 'right' if side < 0 else 'left'
    axis.text(place + 0.05 * side, height, text, ha=align, va='center', fontsize=SMALL, color=INK, zorder=4, bbox=box)
