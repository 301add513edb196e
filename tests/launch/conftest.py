"""A run of `launch.train` in a process of its own."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import jax
import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def start() -> Callable[..., subprocess.Popen]:
  """Function (config, workdir, *flags) -> the process, on one device; all that still run are killed at the end.

  `before` is Python that the process runs before it becomes the launcher.
  """
  environment = {name: value for name, value in os.environ.items() if not name.startswith('SLURM')}
  environment['XLA_FLAGS'] = environment['XLA_FLAGS'].replace('--xla_force_host_platform_device_count=8', '')
  processes = []

  def launch(config: str, workdir: Path, *flags: str, before: str = '', **popen) -> subprocess.Popen:
    command = [sys.executable, '-m', 'launch.train', f'--config={ROOT}/tests/configs/{config}.py']
    command += [f'--workdir={workdir}', f'--compilation_cache={jax.config.jax_compilation_cache_dir}-launched', *flags]
    if before:
      command = [sys.executable, '-c', f'{before}; import os, sys; os.execv(sys.argv[1], sys.argv[1:])', *command]
    pipes = {'stdout': subprocess.DEVNULL, 'stderr': subprocess.PIPE, 'text': True}
    processes.append(subprocess.Popen(command, cwd=ROOT, env=environment, **{**pipes, **popen}))
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
