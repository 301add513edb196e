"""What a run shows while it goes on: a bar on a terminal, plain lines elsewhere; at the end a table."""

import contextlib
import os
import sys
import time
from collections.abc import Mapping
from typing import Any, TextIO

from tqdm import tqdm

QUIET_SECONDS = 5.0  # from one plain line of training to the next
SHOWN = ('loss', 'accuracy', 'r2')  # metrics whose names end so
BAR = '{desc}|{bar:12}| {n_fmt}/{total_fmt}{postfix}'


class Progress:
  """A context manager whose `show` takes the records of a run of `total` steps; a bar if `stream` is a terminal.

  Where the stream is gone (a closed terminal) nothing is shown, and the run goes on.
  """

  def __init__(self, total: int, stream: TextIO | None = None):
    self._total, self._stream = total, stream or sys.stderr
    self._bar = None
    if self._stream.isatty():
      width = {'dynamic_ncols': True} if _tells_its_width(self._stream) else {'ncols': 120, 'nrows': 24}
      self._bar = tqdm(total=total, file=self._stream, bar_format=BAR, **width)
    self._status = ''
    self._metrics: dict[str, float] = {}
    self._first: tuple[int, float] | None = None  # step and time of the first record of training
    self._quiet_until = 0.0

  def __enter__(self) -> 'Progress':
    return self

  def __exit__(self, *exception) -> None:
    if self._bar is not None:
      with contextlib.suppress(OSError):
        self._bar.close()

  def show(self, record: Any) -> None:
    """Shows a record: its `step`, its `metrics` by name, and its `status`, what the run is doing."""
    now = time.monotonic()
    evaluated = any(name.startswith(('validation/', 'test/')) for name in record.metrics)
    due = evaluated or record.status not in ('training', self._status) or now >= self._quiet_until
    if record.metrics and self._first is None:
      self._first, due = (record.step, now), True
    self._status = record.status
    self._metrics.update(record.metrics)
    text = '  '.join(
      [*_numbers(self._metrics, 'train/'), *self._left(record.step, now), *_numbers(self._metrics, 'validation/')]
    )
    with contextlib.suppress(OSError):
      if self._bar is not None:
        self._bar.n = record.step
        self._bar.set_description_str(f'{record.status:10}', refresh=False)
        self._bar.set_postfix_str(text)
      elif due:
        self._quiet_until = now + QUIET_SECONDS
        print(f'{record.status:10} {record.step}/{self._total}  {text}'.rstrip(), file=self._stream, flush=True)

  def _left(self, step: int, now: float) -> list[str]:
    """Time left at the pace since the first record; a resumed run does not begin at step 0."""
    first, since = self._first or (step, now)
    if not first < step < self._total:
      return []
    return [f'{tqdm.format_interval((self._total - step) * (now - since) / (step - first))} left']


def final_table(metrics: Mapping[str, float]) -> str:
  """Metrics by name, one a line, in two columns."""
  width = max(map(len, metrics), default=0)
  return '\n'.join(f'{name:{width}}  {_number(value):>10}' for name, value in metrics.items())


def _tells_its_width(terminal: TextIO) -> bool:
  with contextlib.suppress(OSError):
    return os.get_terminal_size(terminal.fileno()).columns > 0
  return False


def _numbers(metrics: Mapping[str, float], part: str) -> list[str]:
  names = [name for name in metrics if name.startswith(part) and name.endswith(SHOWN)]
  texts = [f'{name.removeprefix("train/")} {_number(metrics[name])}' for name in names]
  if part == 'train/' and 'examples_per_second' in metrics:
    texts.append(f'{metrics["examples_per_second"]:,.0f} examples/s')
  return texts


def _number(value: float) -> str:
  """Four decimals where that says enough, four significant digits elsewhere."""
  return f'{value:.4f}' if 1e-2 <= abs(value) < 1e5 else f'{value:.4g}'
