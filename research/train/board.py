"""TensorBoard event files, written in the caller's thread so that errors are raised."""

import time
from pathlib import Path
from typing import Any

import numpy as np
from tensorboardX import summary
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog


class Board:
  """An event file in `folder`, which hides entries of older files from `first_step` on."""

  def __init__(self, folder: Path, first_step: int):
    folder.mkdir(exist_ok=True)
    self._writer = EventsWriter(str(folder / 'events'))
    self._add(first_step, session_log=SessionLog(status=SessionLog.START))

  def scalar(self, step: int, name: str, value: float) -> None:
    self._add(step, summary=summary.scalar(name, value))

  def text(self, step: int, name: str, value: str) -> None:
    self._add(step, summary=summary.text(name, value))

  def image(self, step: int, name: str, value: np.ndarray) -> None:
    """An image [height, width, 3], uint8."""
    self._add(step, summary=summary.image(name, value, dataformats='HWC'))

  def sync(self) -> None:
    """Flushes everything to disk."""
    self._writer.flush()

  def close(self) -> None:
    self._writer.close()

  def _add(self, step: int, **content: Any) -> None:
    self._writer.write_event(Event(step=step, wall_time=time.time(), **content))
