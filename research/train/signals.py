"""A run is asked to stop by SIGINT or SIGTERM: once politely, twice at once."""

import contextlib
import os
import signal
import threading
from collections.abc import Iterator

from research.train import processes

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stopped(Exception):
  """Raised in the middle of work that can be thrown away."""


class Stop:
  """Notes the first signal in `signum` (0 before it); a second one ends the process at once.

  Processes that train together must leave at the same step: there `signum` changes by `agree` alone, which all call.
  """

  def __init__(self, alone: bool = True):
    self.signum = 0
    self._alone, self._received = alone, 0
    self._raises = False
    self._stack = contextlib.ExitStack()

  def __enter__(self) -> 'Stop':
    # Python lets the main thread alone set handlers; elsewhere the caller's stay in force.
    if threading.current_thread() is threading.main_thread():
      for signum in SIGNALS:
        self._stack.callback(signal.signal, signum, signal.signal(signum, self._handle))
      self._stack.enter_context(_ending_at_the_second())
    return self

  def __exit__(self, *exception):
    self._stack.close()

  def agree(self) -> None:
    """Lets every process know of a signal that one has received."""
    self.signum = processes.highest(self._received)

  @contextlib.contextmanager
  def interrupting(self) -> Iterator[None]:
    """Work inside is given up with `Stopped` as soon as a signal arrives; not where others take part in it."""
    self._raises = self._alone
    try:
      if self.signum:
        raise Stopped
      yield
    finally:
      self._raises = False

  def _handle(self, signum: int, frame):
    self._received = self._received or signum
    if self._alone:
      self.signum = self._received
    if self._raises:
      self._raises = False
      raise Stopped


@contextlib.contextmanager
def _ending_at_the_second() -> Iterator[None]:
  """A thread that counts signals: Python's handlers wait until a compilation or another long call returns."""
  reader, writer = os.pipe()
  os.set_blocking(writer, False)
  before = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
  thread = threading.Thread(target=_count, args=(reader,), daemon=True)
  thread.start()
  try:
    yield
  finally:
    signal.set_wakeup_fd(before)
    os.close(writer)
    thread.join()
    os.close(reader)


def _count(reader: int) -> None:
  seen = 0
  while byte := os.read(reader, 1):
    seen += byte[0] in SIGNALS
    if seen == 2:
      os._exit(128 + byte[0])
