"""What a run left in its workdir, and what its process said at its end."""

import json
import socket
import subprocess
import time
from pathlib import Path

from research.train import recorder

TIMING = ('seconds', 'examples_per_second')


def outcome(workdir: Path) -> tuple:
  """The lines of metrics.jsonl and the result, the hash of the last State in it, less what the clock says."""
  lines = [{name: value for name, value in line.items() if name not in TIMING} for line in recorder.read(workdir)]
  result = json.loads((workdir / 'result.json').read_text())
  return lines, {name: value for name, value in result.items() if name not in TIMING}


def content(folder: Path) -> dict[str, bytes]:
  """Every file of a folder, by its path."""
  return {str(path): path.read_bytes() for path in sorted(folder.rglob('*')) if path.is_file()}


def end(process: subprocess.Popen) -> tuple[str, int]:
  """The last line on standard error, and the exit code as a shell gives it: 128 and more for a signal."""
  _, errors = process.communicate(timeout=300)
  assert 'Traceback' not in errors, errors
  code = process.returncode
  return errors.splitlines()[-1] if errors else '', code if code >= 0 else 128 - code


def free_port() -> int:
  with socket.socket() as listener:
    listener.bind(('127.0.0.1', 0))
    return listener.getsockname()[1]


def wait_for_line(process: subprocess.Popen, text: str) -> None:
  """Until a line of standard error begins with `text`."""
  while not (line := process.stderr.readline()).startswith(text):
    assert line, 'the process ended'


def wait_for_start(process: subprocess.Popen, workdir: Path) -> None:
  """Until the process has noted its start, just after it has read the newest checkpoint."""
  path = workdir / 'environment.json'
  before = path.stat().st_size if path.exists() else 0
  while process.poll() is None and not (path.exists() and path.stat().st_size > before):
    time.sleep(0.005)
