"""A run of `launch.train` in a process of its own."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import jax
import pytest
from forks import Program

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope='session')
def on_one_device() -> dict[str, str]:
  """The environment of a program that is to see one device and no cluster."""
  environment = {name: value for name, value in os.environ.items() if not name.startswith('SLURM')}
  flags = environment['XLA_FLAGS'].replace('--xla_force_host_platform_device_count=8', '')
  return {**environment, 'XLA_FLAGS': flags, 'PYTHONPATH': str(ROOT)}


@pytest.fixture
def start(programs, on_one_device) -> Callable[..., Program | subprocess.Popen]:
  """Function (config, workdir, *flags) -> the process; all that still run are killed at the end.

  `devices` of the host are this process's. `before` is Python that the process runs before it becomes the launcher;
  that and options of `subprocess.Popen` take a fresh interpreter, all else is forked.
  """
  shared = f'--compilation_cache={jax.config.jax_compilation_cache_dir}-launched'
  processes = []

  def launch(config: str, workdir: Path, *flags: str, devices: int = 1, before: str = '', stdout=None, **popen):
    xla_flags = f'{on_one_device["XLA_FLAGS"]} --xla_force_host_platform_device_count={devices}'
    environment = {**on_one_device, 'XLA_FLAGS': xla_flags}
    words = ['-m', 'launch.train', f'--config={ROOT}/tests/configs/{config}.py', f'--workdir={workdir}', shared, *flags]
    if before or popen:
      command = [sys.executable, '-c', f'{before}\nimport os, sys; os.execv(sys.argv[1], sys.argv[1:])']
      options = {'stdout': stdout or subprocess.DEVNULL, 'stderr': subprocess.PIPE, 'text': True, 'cwd': ROOT}
      processes.append(subprocess.Popen([*command, sys.executable, *words], **{**options, 'env': environment, **popen}))
    else:
      processes.append(programs.start(words, environment, stdout))
    return processes[-1]

  yield launch
  for process in processes:
    process.kill()
    process.wait()


def pytest_terminal_summary(terminalreporter):
  """Shows what tests have told by `record_property('summary', line)`."""
  for report in terminalreporter.getreports('passed'):
    for name, line in report.user_properties:
      if name == 'summary':
        terminalreporter.write_line(line)
