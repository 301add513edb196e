"""Writes metrics to metrics.jsonl, the reference, and to TensorBoard."""

import contextlib
import json
import os
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from absl import logging

from research.errors import naming
from research.train.board import Board

EMPTY: Mapping[str, Any] = types.MappingProxyType({})


class Recorder:
  """Appends records to a workdir; a context manager.

  Args:
    workdir: folder of the run.
    lines: lines of metrics.jsonl up to the restored checkpoint; later ones are removed.
    step: step of that checkpoint.
    fields: the config's values by dotted name, which TensorBoard shows too.
    title: the experiment's name, in the titles of figures.
  """

  def __init__(self, workdir: Path, lines: int, step: int, fields: Mapping[str, Any] = EMPTY, title: str = ''):
    self._workdir, self._title = workdir, title
    path = workdir / 'metrics.jsonl'
    self.lines = _cut(path, lines)
    self._file = path.open('a')
    self._board = Board(workdir / 'tensorboard', step + 1)
    self._board.hparams(step, fields)

  def __enter__(self) -> 'Recorder':
    return self

  def __exit__(self, *exception):
    with naming(self._workdir), contextlib.closing(self._board):
      self._file.close()

  def write(self, step: int, values: Mapping[str, float | str]) -> None:
    """Writes a line of metrics (and hashes) of a step."""
    with naming(self._workdir):
      self._file.write(json.dumps({'step': step, **values}, allow_nan=False) + '\n')
      self._file.flush()
      self.lines += 1
      for name, value in values.items():
        if isinstance(value, float):
          self._board.scalar(step, name, value)

  def show(self, step: int, name: str, value: Any) -> None:
    """Writes a text or a Matplotlib figure, saved as figures/NAME."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # takes half a second
    from matplotlib.figure import Figure

    folder = self._workdir / 'figures'
    folder.mkdir(exist_ok=True)
    path = folder / name.replace('/', '_')
    with naming(self._workdir):
      if not isinstance(value, (str, Figure)):
        raise TypeError(f'{name} is of type {type(value).__name__}, but must be a number, a text or a figure')
      if isinstance(value, str):
        self._board.text(step, name, value)
        path.with_name(f'{path.name}.txt').write_text(value, 'utf-8')
      else:
        value.suptitle(f'{self._title}\n{name.replace("/", ", ").replace("_", " ")}, step {step:,}', fontsize=10)
        canvas = FigureCanvasAgg(value)
        canvas.print_png(path.with_name(f'{path.name}.png'))
        self._board.image(step, name, np.asarray(canvas.buffer_rgba())[..., :3])

  def sync(self) -> int:
    """Flushes every line to disk; returns their number."""
    with naming(self._workdir):
      self._file.flush()
      os.fsync(self._file.fileno())
      self._board.sync()
    return self.lines


class NoRecorder(contextlib.nullcontext):
  """For processes other than the first: writes nothing."""

  lines = 0

  def __enter__(self) -> 'NoRecorder':
    return self

  def write(self, step, values) -> None: ...
  def show(self, step, name, value) -> None: ...
  def sync(self) -> int:
    return self.lines


def read(workdir: Path) -> list[dict[str, Any]]:
  """Records of a run, in the order of steps; damaged lines are skipped with a warning; none before the first."""
  path, records = workdir / 'metrics.jsonl', []
  lines = path.read_bytes().splitlines() if path.exists() else []
  for number, line in enumerate(lines, 1):
    try:
      records.append(_record(line))
    except (ValueError, TypeError, KeyError):
      logging.warning('%s: line %d is damaged and is left out', path, number)
  return records


def _record(line: bytes) -> dict[str, Any]:
  """The record on a line. Raises ValueError, TypeError or KeyError if it is damaged."""
  record = dict(json.loads(line))
  numbers = [record['step'], *(value for name, value in record.items() if '/' in name)]
  if not all(isinstance(number, (int, float)) for number in numbers):
    raise ValueError('a step or a metric that is not a number')
  return record


def _cut(path: Path, lines: int) -> int:
  """Keeps the first `lines` lines; returns their number, fewer if the file has fewer."""
  kept = path.read_bytes().splitlines(keepends=True)[:lines] if path.exists() else []
  with path.open('r+b' if path.exists() else 'wb') as file:
    file.truncate(sum(map(len, kept)))
    if kept and not kept[-1].endswith(b'\n'):  # damaged: the next line must not be appended to it
      file.seek(0, os.SEEK_END)
      file.write(b'\n')
  return len(kept)
