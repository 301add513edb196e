"""Progress of a run: a bar on a terminal, plain lines elsewhere, and a final table."""

import contextlib
import os
import sys
import time
from collections.abc import Iterator, Mapping
from typing import TextIO

from tqdm import tqdm

from research.train.config import Config
from research.train.run import Record

QUIET_SECONDS = 5.0  # between plain lines of training
COLUMNS = 80  # per line
BAR = '{desc}|{bar:10}| {n_fmt}/{total_fmt}{postfix}'
EVALUATED = ('validation', 'test')


class Progress:
  """A context manager whose `show` takes the records of a run of `total` steps; a bar if `stream` is a terminal.

  metric: the experiment's target metric, such as test/accuracy, which is shown first.
  If the stream is closed, as with a closed terminal, nothing is shown, and the run continues.
  """

  def __init__(self, total: int, metric: str = '', stream: TextIO | None = None):
    self._total, self._stream = total, stream or sys.stderr
    self._metric = metric.rpartition('/')[2]
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

  def show(self, record: Record) -> None:
    """Shows a record; notes and evaluations stay on the screen."""
    now = time.monotonic()
    due = record.status not in ('training', self._status) or now >= self._quiet_until
    if record.metrics and self._first is None:
      self._first, due = (record.step, now), True
    self._status = record.status
    self._metrics.update(record.metrics)
    kept = [*self._evaluations(record), *record.note.splitlines()]
    with contextlib.suppress(OSError):
      for line in kept:
        self._keep(line)
      if self._bar is not None:
        self._update_bar(record, now)
      elif due and not kept:
        self._quiet_until = now + QUIET_SECONDS
        head = f'{record.status:10} {record.step}/{self._total}  '
        self._keep((head + self._text(record.step, now, COLUMNS - len(head))).rstrip())

  def _keep(self, line: str) -> None:
    if self._bar is not None:
      tqdm.write(line, self._stream)
    else:
      print(line, file=self._stream, flush=True)

  def _update_bar(self, record: Record, now: float) -> None:
    self._bar.n = record.step
    self._bar.set_description_str(f'{record.status:10}', refresh=False)
    head = f'{record.status:10}|{"":10}| {record.step}/{self._total}, '
    self._bar.set_postfix_str(self._text(record.step, now, COLUMNS - len(head)))

  def _evaluations(self, record: Record) -> Iterator[str]:
    """A line per evaluated split; the final table shows those at the end of the run."""
    for part in EVALUATED if record.status != 'done' else ():
      names = sorted((name for name in record.metrics if name.startswith(f'{part}/')), key=self._rank)
      if names:
        numbers = [f'{name.removeprefix(f"{part}/")} {_number(record.metrics[name])}' for name in names]
        yield _fitted([f'{part:10} {record.step}/{self._total}', *numbers], COLUMNS)

  def _text(self, step: int, now: float, columns: int) -> str:
    """The training metrics, most important first, as far as they fit."""
    texts = []
    for part, label in (('validation', 'val '), ('train', '')):
      names = sorted((name for name in self._metrics if name.startswith(f'{part}/')), key=self._rank)
      shown = names[:1] if part == 'validation' else [name for name in names if name == 'train/loss'] or names[:1]
      texts += [f'{label}{name.removeprefix(f"{part}/")} {_number(self._metrics[name])}' for name in shown]
    texts += self._left(step, now)
    if 'examples_per_second' in self._metrics:
      texts.append(f'{self._metrics["examples_per_second"]:,.0f}/s')
    return _fitted(texts, columns)

  def _rank(self, name: str) -> int:
    """The experiment's target metric first, then the loss, then in order of appearance."""
    return [self._metric, 'loss', name.rpartition('/')[2]].index(name.rpartition('/')[2])

  def _left(self, step: int, now: float) -> list[str]:
    """Time left at the pace since the first record, as a resumed run does not start at step 0."""
    first, since = self._first or (step, now)
    if not first < step < self._total or self._status == 'done':  # which may come early
      return []
    return [f'{tqdm.format_interval((self._total - step) * (now - since) / (step - first))} left']


def target_metric(config: Config) -> str:
  """The first target metric of a config's experiment, such as test/accuracy; '' if it has none."""
  targets = getattr(sys.modules[type(config).__module__], 'TARGETS', ())
  return targets[0].metric if targets else ''


def final_table(metrics: Mapping[str, float]) -> str:
  """Metrics by name in two columns, one per line."""
  width = max(map(len, metrics), default=0)
  return '\n'.join(f'{name:{width}}  {_number(value):>10}' for name, value in metrics.items())


def _tells_its_width(terminal: TextIO) -> bool:
  with contextlib.suppress(OSError):
    return os.get_terminal_size(terminal.fileno()).columns > 0
  return False


def _fitted(texts: list[str], columns: int) -> str:
  """As many of the texts as fit on a line."""
  while len('  '.join(texts)) > max(columns, 0) and len(texts) > 1:
    texts = texts[:-1]
  return '  '.join(texts)


def _number(value: float) -> str:
  """Four decimals if that is precise enough, else four significant digits."""
  return f'{value:.4f}' if 1e-2 <= abs(value) < 1e5 else f'{value:.4g}'
