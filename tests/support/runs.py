"""Helpers for runs of tests/configs, their workdirs and their processes."""

import dataclasses
import json
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

from launch.flags import load_config
from research.train import recorder
from research.train.config import Config
from research.train.loop import train
from research.train.workdir import Workdir

CONFIGS = Path(__file__).parents[1] / 'configs'
TIMING = ('seconds', 'examples_per_second')


def make(name: str, **changes: Any) -> Config:
  """A config of tests/configs with changed fields."""
  return dataclasses.replace(load_config(f'{CONFIGS / name}.py'), **changes)


def drain(config: Config, workdir: str | Path = '', experiment=None) -> list:
  """All records of a run."""
  return list(train(config, workdir, experiment=experiment))


def untold(config: Config, workdir: str | Path = ''):
  """The last record of a run without evaluations, which compiles only its step."""
  return drain(config, workdir, dataclasses.replace(config.build(), evaluators={}, final_evaluators={}))[-1]


def claim(folder: Path, config: Config, step: int = 0) -> None:
  """Starts a run in a workdir at a step, as training would."""
  with Workdir(folder, config) as workdir:
    workdir.note_config({})
    workdir.note_start(step, {})


def outcome(workdir: Path) -> tuple:
  """The lines of metrics.jsonl and the result, without wall-clock times."""
  lines = [{name: value for name, value in line.items() if name not in TIMING} for line in recorder.read(workdir)]
  result = json.loads((workdir / 'result.json').read_text())
  return lines, {name: value for name, value in result.items() if name not in TIMING}


def content(folder: Path) -> dict[str, bytes]:
  """Every file of a folder, by its path."""
  return {str(path): path.read_bytes() for path in sorted(folder.rglob('*')) if path.is_file()}


def end(process: subprocess.Popen) -> tuple[str, int]:
  """The last line on standard error, and the exit code as in a shell: 128 + N for a signal."""
  _, errors = process.communicate(timeout=300)
  assert 'Traceback' not in errors, errors
  code = process.returncode
  return errors.splitlines()[-1] if errors else '', code if code >= 0 else 128 - code


def free_port() -> int:
  with socket.socket() as listener:
    listener.bind(('127.0.0.1', 0))
    return listener.getsockname()[1]


def wait_for_line(process: subprocess.Popen, text: str) -> None:
  """Waits for a line on standard error that starts with `text`."""
  while not (line := process.stderr.readline()).startswith(text):
    assert line, 'the process ended'


def wait_for_start(process: subprocess.Popen, workdir: Path) -> None:
  """Waits until the process has recorded its start, right after restoring the newest checkpoint."""
  path = workdir / 'environment.json'
  before = path.stat().st_size if path.exists() else 0
  while process.poll() is None and not (path.exists() and path.stat().st_size > before):
    time.sleep(0.005)
