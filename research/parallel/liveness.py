"""Failure detection: when a process is lost, the others name it and exit.

JAX alone would wait for a hanging process until its timeout, and then abort with SIGABRT and a page of C++.
"""

import atexit
import contextlib
import ctypes
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Sequence
from typing import Any

import jax
from jax._src.distributed import global_state

from research.errors import LostProcessError, exit_code_of

KEY = 'strata/alive'
SILENT = 10  # rounds without a heartbeat after which a process is lost
LINGER = 5  # further rounds that the coordinator stays: when it exits, JAX aborts the others before they can report
DAY = 86_400
GO_ON = 'restart all processes with the same command to resume from the last checkpoint'


class Liveness:
  """A context manager that exits this process, with a line, within `seconds` of another's last heartbeat.

  Leaving it without an exception waits for all processes. A process that leaves with one waits a while for the same to
  happen in the others, and then exits without JAX's shutdown barrier, which would never complete.
  """

  def __init__(self, client: Any, process: int, hosts: Sequence[str], seconds: float):
    self._client, self._process, self._hosts, self._seconds = client, process, hosts, seconds
    self._pause = seconds / (SILENT + LINGER)  # between rounds
    self._rounds = 0
    self._last = {}  # the last heartbeat of each process
    self._misses = [0] * len(hosts)  # rounds without a new heartbeat
    self._stopped = threading.Event()
    self._thread = threading.Thread(target=self._watch, daemon=True)

  def __enter__(self) -> 'Liveness':
    self._thread.start()
    return self

  def __exit__(self, kind, error, trace) -> None:
    if error is None:
      self._wait_for_all('done', DAY)
      self._stop()
      return
    if isinstance(error, jax.errors.JaxRuntimeError) or 'Gloo' in str(error):
      self._wait_for_the_watch()
    self._stop()
    if not self._wait_for_all('failed', self._seconds / 2):
      atexit.register(_end, exit_code_of(error))

  def _wait_for_the_watch(self) -> None:
    """Exits the process if the error was caused by a lost one."""
    enough = self._rounds + SILENT + LINGER
    while self._rounds < enough:
      time.sleep(self._pause)

  def _stop(self) -> None:
    self._stopped.set()
    self._thread.join(self._pause)

  def _wait_for_all(self, what: str, seconds: float) -> bool:
    with contextlib.suppress(jax.errors.JaxRuntimeError):
      self._client.wait_at_barrier(f'strata/{what}', int(1_000 * seconds))
      return True
    return False

  def _watch(self) -> None:
    while not self._stopped.wait(self._pause):
      if lost := self._lost():
        names = ' and '.join(f'process {number} ({self._hosts[number]})' for number in lost)
        verb, silence = 'was' if len(lost) == 1 else 'were', SILENT * self._pause
        line = f'{names} {verb} lost: no heartbeat for {silence:.1f} s; {GO_ON}'
        leave(line, LINGER * self._pause if self._process == 0 else 0)

  def _lost(self) -> list[int]:
    """Indices of the silent processes; only the coordinator's if it does not answer."""
    beat = threading.Thread(target=self._beat, daemon=True)
    beat.start()
    beat.join(SILENT * self._pause)
    if beat.is_alive():
      return [0]
    return [number for number, misses in enumerate(self._misses) if misses >= SILENT and number != self._process]

  def _beat(self) -> None:
    """Sends a heartbeat and checks the others'; counts rounds, so that a slow coordinator blames nobody."""
    self._rounds += 1
    with contextlib.suppress(jax.errors.JaxRuntimeError):
      self._client.key_value_set(f'{KEY}/{self._process}', str(self._rounds), allow_overwrite=True)
      heard = {int(key.rpartition('/')[2]): value for key, value in self._client.key_value_dir_get(KEY)}
      for number in range(len(self._hosts)):
        new = heard.get(number) != self._last.get(number)
        self._misses[number] = 0 if new else self._misses[number] + 1
      self._last = heard


def leave(line: str, after: float = 0) -> None:
  """Exits the process from any thread, with `line` on standard error and the code of LostProcessError."""
  os.write(sys.__stderr__.fileno(), f'error: {line}\n'.encode())
  time.sleep(after)
  os._exit(LostProcessError.exit_code)


def watch_for_the_end_of_the_coordinator() -> None:
  """Turns JAX's SIGABRT after the loss of the coordinator into a line and an exit code.

  The signal comes from a C++ thread, where Python's handlers never run.
  """
  ctypes.CDLL(None).signal(signal.SIGABRT, _on_abort)


@ctypes.CFUNCTYPE(None, ctypes.c_int)
def _on_abort(signum: int) -> None:
  """Returns, letting the process abort, if the coordinator is not the reason."""
  if global_state.process_id == 0 or not global_state.coordinator_address:
    return
  host, _, port = global_state.coordinator_address.rpartition(':')
  try:
    socket.create_connection((host.strip('[]'), int(port)), timeout=2).close()
  except OSError:
    leave(f'process 0, the coordinator at {host}:{port}, was lost: its connection broke; {GO_ON}')


def _end(code: int) -> None:
  sys.stdout.flush()
  sys.stderr.flush()
  os._exit(code)
