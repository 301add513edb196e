"""SIGINT, SIGTERM and SIGHUP: the first signal checkpoints and exits, the second exits immediately."""

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from typing import Any

from research.parallel import processes

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
AT_ONCE = (signal.SIGINT, signal.SIGTERM)  # a closed terminal sends SIGHUP twice, from the kernel and the shell


class Stopped(BaseException):
  """Raised within work that can be discarded; no `except Exception` catches it."""


class Stop:
  """Records the first signal in `signum` (0 before it).

  As a context manager, for a program, it handles signals throughout, and a second one exits immediately. With `around`,
  for a notebook, it handles them only while a record is computed; otherwise, and from the second one on, they are the
  caller's. Ignored signals (`nohup`) stay ignored.

  With many processes all must leave at the same step: `signum` changes only in `agree`, which all call.
  """

  def __init__(self, alone: bool = True):
    self.signum = 0
    self._alone, self._received = alone, 0
    self._raises, self._lent = False, False
    self._handlers, self._counting = contextlib.ExitStack(), contextlib.ExitStack()

  def __enter__(self) -> 'Stop':
    if _in_main_thread():
      self._counting.enter_context(_ending_at_the_second())
    self._install()
    return self

  def __exit__(self, *exception):
    self._handlers.close()
    self._counting.close()

  def around(self, items: Iterator[Any]) -> Iterator[Any]:
    """Yields the items of a generator, handling signals only while it computes the next one."""
    self._lent = True
    with contextlib.closing(items):
      while True:
        self._install()
        try:
          item = next(items)
        except StopIteration:
          return
        finally:
          self._handlers.close()
        yield item

  def agree(self) -> None:
    """Shares a signal received by one process with all."""
    self.signum = processes.highest(self._received)

  @contextlib.contextmanager
  def interrupting(self) -> Iterator[None]:
    """Aborts the work within with `Stopped` when a signal arrives, unless other processes take part in it."""
    self._raises = self._alone
    try:
      if self.signum:
        raise Stopped
      yield
    finally:
      self._raises = False

  def _install(self) -> None:
    if not _in_main_thread() or (self._lent and self._received in AT_ONCE):
      return
    for signum in SIGNALS:
      if signal.getsignal(signum) is not signal.SIG_IGN:
        self._handlers.callback(signal.signal, signum, signal.signal(signum, self._handle))

  def _handle(self, signum: int, frame):
    self._received = self._received or signum
    if self._alone:
      self.signum = self._received
    if self._lent and signum in AT_ONCE:
      self._handlers.close()
    if self._raises:
      self._raises = False
      raise Stopped


def _in_main_thread() -> bool:
  """Only the main thread may set handlers in Python; elsewhere the caller's stay in force."""
  return threading.current_thread() is threading.main_thread()


@contextlib.contextmanager
def _ending_at_the_second() -> Iterator[None]:
  """A thread that counts signals, as Python's handlers wait for a compilation or another long call to return."""
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
    seen += byte[0] in AT_ONCE
    if seen == 2:
      os._exit(128 + byte[0])
