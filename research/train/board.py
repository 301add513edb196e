"""TensorBoard event files, written in the caller's thread so that errors are raised."""

import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from tensorboardX import summary
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog

SYNC_SECONDS = 2.0


class Board:
  """An event file in `folder`, which hides entries of older files from `first_step` on."""

  def __init__(self, folder: Path, first_step: int):
    folder.mkdir(exist_ok=True)
    self._writer = EventsWriter(str(folder / 'events'))
    self._synced = -math.inf  # the first event is shown at once
    self._add(first_step, session_log=SessionLog(status=SessionLog.START))

  def scalar(self, step: int, name: str, value: float) -> None:
    self._add(step, summary=summary.scalar(name, value))

  def text(self, step: int, name: str, value: str) -> None:
    self._add(step, summary=summary.text(name, value))

  def image(self, step: int, name: str, value: np.ndarray) -> None:
    """An image [height, width, 3], uint8."""
    self._add(step, summary=summary.image(name, value, dataformats='HWC'))

  def hparams(self, step: int, fields: Mapping[str, Any]) -> None:
    """The config, by dotted name: for the tab of hyperparameters, and as a text."""
    values = {name: value if isinstance(value, (bool, int, float)) else str(value) for name, value in fields.items()}
    _, start, _ = summary.hparams(values, {})
    self._add(step, summary=start)
    self.text(step, 'config', '\n'.join(f'    {name} = {value!r}' for name, value in fields.items()))

  def sync(self) -> None:
    """Flushes everything to disk."""
    self._writer.flush()
    self._synced = time.monotonic()

  def close(self) -> None:
    self._writer.close()

  def _add(self, step: int, **content: Any) -> None:
    self._writer.write_event(Event(step=step, wall_time=time.time(), **content))
    if time.monotonic() - self._synced > SYNC_SECONDS:
      self.sync()
