"""Shared by all commands: flags, machine settings, and exit codes instead of tracebacks."""

import contextlib
import errno
import functools
import io
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import absl.app
import jax
from absl import flags, logging

from launch import cpu
from launch.flags import PathParser, parse
from research.errors import ConfigError, RunError, exit_code_of, naming
from research.ops import kernels
from research.paths import ROOT, user_cache

CPU_LEVERS = flags.DEFINE_bool('cpu_levers', True, 'CPU settings: reuse memory, YNNPACK reductions, barriers')
PLAIN = flags.DEFINE_list('plain_kernels', [], f'fast CPU kernels to turn off, of: {", ".join(kernels.NAMES)}')
CACHE = flags.DEFINE(
  PathParser(optional=True),
  'compilation_cache',
  None,
  "folder of compiled programs; default: strata/xla in the user's cache; empty: no cache",
)

ADVICE = {
  errno.ENOSPC: 'free some space there',
  errno.EDQUOT: 'free some space there',
  errno.EFBIG: 'free some space there',
  errno.EACCES: 'make it writable',
  errno.EROFS: 'make it writable',
  errno.ENOENT: 'put it back',
  errno.EPIPE: 'keep its reader open',
}


def run(main: Callable[[], int | None], parser: Callable[[list[str]], list[str]] = parse) -> None:
  """Parses the flags, runs `main`, and exits with its return value or the exit code of its exception.

  A RunError has its own exit code; 74 is an OSError, 130 Ctrl-C. Their tracebacks are shown with --verbosity=1; any
  other exception is a bug and keeps its traceback.
  """
  _open_streams()
  try:
    absl.app.run(lambda argv: _main(functools.partial(main, *argv[1:])), flags_parser=parser)
  except (Exception, KeyboardInterrupt) as error:
    if not (line := _line_of(error)):
      raise
    sys.exit(_tell(line, exit_code_of(error)))


def _line_of(error: BaseException) -> str:
  """The line for an exception; empty for a bug."""
  if line := getattr(error, 'told', ''):
    return line
  if isinstance(error, KeyboardInterrupt):
    return 'interrupted'
  if isinstance(error, OSError):
    return _of_system(error)
  return str(error) if isinstance(error, RunError) else ''


def machine_flags() -> list[str]:
  """The machine flags of this process, to pass on to another command."""
  cache = [] if CACHE.value is None else [f'--compilation_cache={CACHE.value}']
  plain = [f'--plain_kernels={",".join(PLAIN.value)}'] if PLAIN.value else []
  return [f'--cpu_levers={CPU_LEVERS.value}', *plain, *cache]


def _main(main: Callable[[], int | None]) -> int | None:
  logging.get_absl_handler().python_handler.addFilter(_worth_showing)
  if CPU_LEVERS.value:
    for line in cpu.tune():
      logging.debug(line)
  _cache_compilations(CACHE.value)
  with needing_devices(), kernels.plain(*PLAIN.value):
    code = main()
  with naming('standard output'):
    sys.stdout.flush()
  return code


@contextlib.contextmanager
def needing_devices() -> Iterator[None]:
  """Turns the various errors of JAX without devices into a ConfigError."""
  try:
    yield
  except (RuntimeError, AssertionError):
    try:
      jax.devices()
    except (RuntimeError, AssertionError) as error:
      reason = f' ({" ".join(str(error).split())})' if str(error) else ''
      raise ConfigError(
        f'JAX_PLATFORMS={jax.config.jax_platforms or ""}: JAX has no such device here{reason}; '
        "give cpu or leave it out, or install what JAX needs for it, such as pip install -e '.[cuda]'"
      ) from error
    raise


def _open_streams() -> None:
  """Opens closed standard streams on the null device: otherwise the next opened file would get their output.

  Characters missing in an output's encoding are escaped.
  """
  for name, mode in (('stdin', 'r'), ('stdout', 'w'), ('stderr', 'w')):
    stream = getattr(sys, name)
    if stream is None:
      setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_RDWR), mode))
    elif mode == 'w' and isinstance(stream, io.TextIOWrapper):
      with contextlib.suppress(OSError):  # of a pipe
        stream.reconfigure(errors='backslashreplace')


def _of_system(error: OSError) -> str:
  """The system's error, the file, and how to fix it."""
  if error.strerror is None:
    return str(error)
  place, advice = error.filename or 'standard output', ADVICE.get(error.errno, 'fix that')
  return f'{place}: {error.strerror}; {advice} and run the same command again'


def _tell(message: str, code: int) -> int:
  logging.debug('where it was raised', exc_info=True)
  with contextlib.suppress(OSError):
    print(f'error: {message}', file=sys.stderr)
  for stream in (sys.stdout, sys.stderr):
    try:
      stream.flush()
    except OSError:  # Python would report it again at exit
      os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
  return code


def _worth_showing(record) -> bool:
  """Shows messages below warnings only from our own code."""
  ours = record.pathname.startswith(tuple(f'{ROOT}/{room}/' for room in ('launch', 'research', 'experiments')))
  return ours or record.levelno >= logging.converter.STANDARD_WARNING or logging.get_verbosity() > 0


def _cache_compilations(folder: Path | str | None) -> None:
  """Caches every compiled program, so that a second start need not compile."""
  if folder == '':
    return
  try:
    folder = folder or user_cache() / 'xla'
    folder.mkdir(parents=True, exist_ok=True)
  except (OSError, ConfigError) as error:
    logging.warning('no compilation cache: %s', error)
    return
  if not os.access(folder, os.W_OK):
    logging.warning('no compilation cache: %s cannot be written', folder)
    return
  jax.config.update('jax_compilation_cache_dir', str(folder))
  jax.config.update('jax_persistent_cache_min_compile_time_secs', 0)
  jax.config.update('jax_persistent_cache_min_entry_size_bytes', -1)
