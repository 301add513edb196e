"""Python programs that start in milliseconds, forked from a server that has imported JAX and the library.

A program starts as from `python -m MODULE` or `python -c CODE` in its own process, with the usual environment, streams,
signals and exit code, and JAX's backends uninitialized. What Python and JAX read on import (closed streams, JAX_*
variables) is the server's: programs that change these need `subprocess`.
"""

import contextlib
import gc
import importlib
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).parents[2]
IMPORTED = (  # slow imports of a run; nothing that defines flags of a command
  'experiments.wiring',
  'launch.app',
  'research.report.curves',
  'matplotlib.pyplot',
  'research.evaluate.exact',
  'research.train.loop',
)


class Server:
  """A context manager: the forking process; it exits with the block, its programs do not."""

  def __enter__(self) -> 'Server':
    self._requests, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with other:
      command = [sys.executable, __file__, str(other.fileno())]
      self._process = subprocess.Popen(command, cwd=ROOT, pass_fds=[other.fileno()], stdin=subprocess.DEVNULL)
    return self

  def __exit__(self, *exception):
    self._requests.close()
    self._process.wait()

  def start(self, words: Sequence[str], env: Mapping[str, str], stdout=None) -> 'Program':
    """Starts `python WORDS` in the environment `env`; without a file `stdout`, both outputs are pipes."""
    pipes = [os.pipe() for _ in ('stdout', 'stderr')]
    status, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with other:
      outputs = [stdout.fileno() if stdout else pipes[0][1], pipes[1][1]]
      message = json.dumps({'words': list(map(str, words)), 'env': dict(env)}).encode()
      socket.send_fds(self._requests, [message], [*outputs, other.fileno()])
    for _, writer in pipes:
      os.close(writer)
    return Program(status, *(os.fdopen(reader) for reader, _ in pipes))

  def run(self, words: Sequence[str], env: Mapping[str, str]) -> subprocess.CompletedProcess:
    """Runs `python WORDS` like `subprocess.run`."""
    program = self.start(words, env)
    stdout, stderr = program.communicate(300)
    return subprocess.CompletedProcess(words, program.returncode, stdout, stderr)


class Program:
  """The subset of `subprocess.Popen` used by tests."""

  def __init__(self, status: socket.socket, stdout, stderr):
    self.stdout, self.stderr, self.returncode = stdout, stderr, None
    self._status = status
    self.pid = int(status.recv(64))

  def poll(self) -> int | None:
    with contextlib.suppress(subprocess.TimeoutExpired):
      self.wait(0)
    return self.returncode

  def wait(self, timeout: float | None = None) -> int:
    if self.returncode is None:
      if not select.select([self._status], [], [], timeout)[0]:
        raise subprocess.TimeoutExpired(f'process {self.pid}', timeout)
      self.returncode = int(self._status.recv(64))
    return self.returncode

  def communicate(self, timeout: float | None = None) -> tuple[str, str]:
    """The content of both pipes at the program's exit, at most their capacity of 64 KiB."""
    self.wait(timeout)
    return self.stdout.read(), self.stderr.read()

  def send_signal(self, signum: int) -> None:
    if self.poll() is None:
      os.kill(self.pid, signum)

  def kill(self) -> None:
    self.send_signal(signal.SIGKILL)


def serve(requests: socket.socket) -> list[str]:
  """Forks for every request; returns, in each new process, the words of its program."""
  while True:
    message, descriptors, *_ = socket.recv_fds(requests, 2**20, 3)
    if not message:
      sys.exit()
    if os.fork() == 0:
      return _watched(json.loads(message), descriptors)
    for descriptor in descriptors:
      os.close(descriptor)
    with contextlib.suppress(ChildProcessError):  # there is none
      while os.waitpid(-1, os.WNOHANG)[0]:
        pass


def _watched(request: dict, descriptors: list[int]) -> list[str]:
  """Forks again: the new process becomes the program and sends its pid; this one sends its exit code."""
  *outputs, status = descriptors
  status = socket.socket(fileno=status)
  if pid := os.fork():
    for descriptor in outputs:
      os.close(descriptor)
    status.send(str(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])).encode())
    os._exit(0)
  for number, descriptor in enumerate(outputs, start=1):
    os.dup2(descriptor, number)
    os.close(descriptor)
  os.environ.clear()
  os.environ.update(request['env'])
  with status:
    status.send(str(os.getpid()).encode())
  return request['words']


def become(words: Sequence[str]) -> None:
  """Runs `python WORDS`."""
  if words[0] == '-m':
    sys.argv = words[1:]
    runpy.run_module(words[1], run_name='__main__', alter_sys=True)
  else:
    sys.argv = ['-c', *words[2:]]
    main = sys.modules['__main__'] = ModuleType('__main__')
    exec(words[1], vars(main))


if __name__ == '__main__':
  sys.path[0] = str(ROOT)
  for name in IMPORTED:
    importlib.import_module(name)
  gc.freeze()  # a garbage collection in a program would copy the imported modules' pages
  become(serve(socket.socket(fileno=int(sys.argv[1]))))
