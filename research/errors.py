"""What can go wrong in a run that a user can mend: one line each, with the exit code of its kind."""

import contextlib
import math
import os
from collections.abc import Iterator


class RunError(Exception):
  """A fault told in one line: what, where and what to do."""

  exit_code = 1


class ConfigError(RunError):
  """A flag, field or value that cannot be used."""

  exit_code = 2


class DataError(RunError):
  """A data set that is missing, damaged or not what it should be."""

  exit_code = 3


class CheckpointError(RunError):
  """No checkpoint that can be used."""

  exit_code = 4


class NotFiniteError(RunError):
  """A loss that became NaN or infinite."""

  exit_code = 5


class WorkdirError(RunError):
  """A workdir that is taken, unwritable or another run's."""

  exit_code = 6


class LostProcessError(RunError):
  """Processes that train together and one of which is gone, or never came."""

  exit_code = 7


def check_range(name: str, value: float, below: float = math.inf) -> None:
  """Raises ConfigError unless 0 <= `value` < `below`; NaN is never in a range."""
  if not 0 <= value < below:
    end = 'finite' if below == math.inf else f'less than {below}'
    raise ConfigError(f'{name}={value}: must be at least 0 and {end}')


@contextlib.contextmanager
def naming(path: os.PathLike | str) -> Iterator[None]:
  """Gives `path` to an OSError raised within, if the system did not say which file it was about."""
  try:
    yield
  except OSError as error:
    error.filename = error.filename or str(path)
    raise
