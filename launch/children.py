"""A measurement in a process of its own, which shares nothing with those before it."""

import os
import subprocess
import sys
from collections.abc import Sequence

from research.errors import RunError


def measured(module: str, flags: Sequence[str], **environment: str) -> float:
  """The number that `python -m module flags` prints, with these variables too; its messages pass through.

  Raises RunError where it fails.
  """
  command = [sys.executable, '-m', module, *flags]
  run = subprocess.run(command, stdout=subprocess.PIPE, text=True, env={**os.environ, **environment})
  if run.returncode:
    raise RunError(f'{" ".join(command[1:])} ended with {run.returncode}; see above')
  return float(run.stdout)
