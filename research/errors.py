"""Errors that a user can fix, reported in one line with an exit code per kind."""

import contextlib
import difflib
import math
import numbers
import os
import textwrap
from collections.abc import Iterable, Iterator, Sequence


class RunError(Exception):
  """An error reported in one line: what happened, where, and what to do."""

  exit_code = 1


class ConfigError(RunError):
  """A flag, field or value that cannot be used."""

  exit_code = 2


class DataError(RunError):
  """A dataset that is missing, damaged or invalid."""

  exit_code = 3


class CheckpointError(RunError):
  """There is no usable checkpoint."""

  exit_code = 4


class NotFiniteError(RunError):
  """A loss that became NaN or infinite."""

  exit_code = 5


class WorkdirError(RunError):
  """A workdir that is in use, not writable or another run's."""

  exit_code = 6


class LostProcessError(RunError):
  """A process of a distributed run was lost or never joined."""

  exit_code = 7


def exit_code_of(error: BaseException) -> int:
  """Exit code of a process that exits with this exception: 74 for an OSError, 130 for Ctrl-C, 1 for a bug."""
  if isinstance(error, KeyboardInterrupt):
    return 130
  return getattr(error, 'exit_code', 74 if isinstance(error, OSError) else 1)


def check_range(
  name: str,
  value: float,
  below: float = math.inf,
  *,
  at_least: float = 0,
  above: float | None = None,
  at_most: float | None = None,
) -> None:
  """Raises ConfigError unless `at_least` <= `value` < `below`; NaN is in no range.

  `above` replaces `at_least` to exclude the lower end, `at_most` replaces `below` to include the upper one.
  """
  begins = value >= at_least if above is None else value > above
  ends = value < below if at_most is None else value <= at_most
  if not (begins and ends):
    low = f'at least {at_least}' if above is None else f'more than {above}'
    high = f'at most {at_most}' if at_most is not None else 'finite' if below == math.inf else f'less than {below}'
    raise ConfigError(f'{name}={value}: must be {low} and {high}')


def check_count(name: str, value: int, at_least: int = 1, at_most: int | None = None) -> None:
  """Raises ConfigError unless `value` is an integer (NumPy's included) from `at_least` to `at_most`."""
  if not _whole(value) or value < at_least or (at_most is not None and value > at_most):
    ends = f'from {at_least} to {at_most}' if at_most is not None else f'of at least {at_least}'
    raise ConfigError(f'{name}={value}: must be a whole number {ends}')


def check_counts(**counts: int | Sequence[int]) -> None:
  """Raises ConfigError unless each is a whole number of at least 1, or a sequence of them that is not empty."""
  for name, count in counts.items():
    if isinstance(count, numbers.Number):
      check_count(name, count)
    elif not len(count):
      raise ConfigError(f'{name}={count}: must have at least one entry')
    else:
      check_each(**{name: count})


def check_each(**counts: Sequence[int]) -> None:
  """Raises ConfigError unless every entry of each sequence, which may be empty, is a whole number of at least 1."""
  for name, values in counts.items():
    if not all(_whole(value) and value >= 1 for value in values):
      raise ConfigError(f'{name}={values}: each must be a whole number of at least 1')


def check_choice(name: str, value: str, choices: Iterable[str]) -> None:
  """Raises ConfigError with the nearest of `choices` unless `value` is one of them."""
  if value not in choices:
    raise ConfigError(f'{name}={value!r}: {unknown(value, choices)}')


def _whole(value: object) -> bool:
  return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def alike(name: object, known: Iterable[str]) -> list[str]:
  """Up to three names similar to `name`, ignoring case, best first."""
  spellings = {}
  for other in dict.fromkeys(known):
    spellings.setdefault(other.lower(), []).append(other)
  close = difflib.get_close_matches(str(name).lower(), spellings)
  return [other for word in close for other in spellings[word]][:3]


def unknown(name: object, known: Iterable[str]) -> str:
  """The message for a name that is not one of `known`: the closest ones, or all."""
  known = [other for other in dict.fromkeys(known) if other]
  return f'is unknown; nearest: {", ".join(alike(name, known) or known)}'


def failure(name: str, error: Exception) -> str:
  """The message for an evaluation report, `split/report`, that raised `error`."""
  split, _, report = name.partition('/')
  text = shortened(f'{type(error).__name__}: {error}')
  return f'the report {report} of {split} raised {text}'


def shortened(message: object) -> str:
  """A foreign message in one line of at most 300 characters."""
  return textwrap.shorten(str(message), 300)


def told(error: Exception, line: str) -> Exception:
  """`error` with the line that a launcher prints when it exits with it; its type is unchanged."""
  error.add_note(line)
  error.told = line
  return error


@contextlib.contextmanager
def naming(path: os.PathLike | str) -> Iterator[None]:
  """Adds `path` to an OSError raised within, if the system did not name a file."""
  try:
    yield
  except OSError as error:
    if error.errno:  # otherwise it has its own message, which a filename would hide
      error.filename = error.filename or str(path)
    raise
