"""Processes that train together end together, and the others say which of them was lost.

JAX alone would wait for a process that hangs until its own time-out, and then end by SIGABRT with a page of C++.
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
SILENT = 10  # rounds without a sign of life after which a process is lost
LINGER = 5  # rounds that the coordinator stays then: when it leaves, JAX ends the others before they can tell
DAY = 86_400
GO_ON = 'restart all processes with the same command to resume from the last checkpoint'


class Liveness:
  """A context manager that ends this process, with a line, within `seconds` of the last sign of life of another.

  Leaving it without an exception waits until all processes do. A process that leaves with one waits a while for the
  same to happen in the others, and then ends without the farewell of JAX, for which it would wait in vain.
  """

  def __init__(self, client: Any, process: int, hosts: Sequence[str], seconds: float):
    self._client, self._process, self._hosts, self._seconds = client, process, hosts, seconds
    self._pause = seconds / (SILENT + LINGER)  # between rounds
    self._rounds = 0
    self._last = {}  # what was last heard of each process
    self._misses = [0] * len(hosts)  # rounds in which nothing new was heard of it
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
    """Ends the process if what broke came of a lost one."""
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
    """Numbers of the processes that are silent; of a coordinator that does not answer, its alone."""
    beat = threading.Thread(target=self._beat, daemon=True)
    beat.start()
    beat.join(SILENT * self._pause)
    if beat.is_alive():
      return [0]
    return [number for number, misses in enumerate(self._misses) if misses >= SILENT and number != self._process]

  def _beat(self) -> None:
    """Shows a sign of life and looks for the others'; rounds are counted, so that a slow coordinator blames nobody."""
    self._rounds += 1
    with contextlib.suppress(jax.errors.JaxRuntimeError):
      self._client.key_value_set(f'{KEY}/{self._process}', str(self._rounds), allow_overwrite=True)
      heard = {int(key.rpartition('/')[2]): value for key, value in self._client.key_value_dir_get(KEY)}
      for number in range(len(self._hosts)):
        new = heard.get(number) != self._last.get(number)
        self._misses[number] = 0 if new else self._misses[number] + 1
      self._last = heard


def leave(line: str, after: float = 0) -> None:
  """Ends the process from any thread: `line` on standard error, and the code of LostProcessError."""
  os.write(sys.__stderr__.fileno(), f'error: {line}\n'.encode())
  time.sleep(after)
  os._exit(LostProcessError.exit_code)


def watch_for_the_end_of_the_coordinator() -> None:
  """Gives JAX's SIGABRT, by which it ends all processes once the coordinator is gone, a line and an exit code.

  The signal comes from a thread of C++, where Python's own handlers never run.
  """
  ctypes.CDLL(None).signal(signal.SIGABRT, _on_abort)


@ctypes.CFUNCTYPE(None, ctypes.c_int)
def _on_abort(signum: int) -> None:
  """Returns, and so lets the process abort, where the coordinator is not the reason."""
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
