"""What can go wrong in a run that a user can mend: one line each, with the exit code of its kind."""

import contextlib
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


@contextlib.contextmanager
def naming(path: os.PathLike | str) -> Iterator[None]:
  """Gives `path` to an OSError raised within, if the system did not say which file it was about."""
  try:
    yield
  except OSError as error:
    error.filename = error.filename or str(path)
    raise
