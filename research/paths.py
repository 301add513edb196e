"""Project folders, and paths given by the user in a flag, a variable or a notebook."""

import os
import re
from pathlib import Path

from research.errors import ConfigError

ROOT = Path(__file__).resolve().parents[1]  # of the project


def experiments() -> dict[str, Path]:
  """The folders of the project's experiments, by name."""
  return {path.parent.name: path.parent for path in sorted(ROOT.glob('experiments/*/config.py'))}


def local(path: str | os.PathLike, name: str = '') -> Path:
  """The absolute path, with `~` expanded, of a local file or folder given by the flag or variable `name`.

  Absolute, as the current folder may change. Raises ConfigError for an empty path, a bucket URL, or `~` without a home.
  """
  text = os.fsdecode(path)
  place = f'{name}={text}: ' if name else ''
  if not text:
    raise ConfigError(f'{place}is empty; give a path, such as runs/digits')
  if re.match(r'[A-Za-z][\w+.-]*:/', text):  # `Path` merges the two slashes of gs://
    raise ConfigError(
      f'{place}is an address, not a folder on this machine; mount the bucket and give the path where it is mounted'
    )
  try:
    return Path(text).expanduser().absolute()
  except RuntimeError as error:
    home = Path(text).parts[0]
    raise ConfigError(f'{place}{home} is a home directory that cannot be found; give the full path') from error


def user_cache() -> Path:
  """The project's folder in the user's cache. Raises ConfigError if there is no home directory."""
  if named := os.environ.get('XDG_CACHE_HOME'):
    return local(named, 'XDG_CACHE_HOME') / 'strata'
  try:
    return local('~/.cache') / 'strata'
  except ConfigError as error:
    advice = 'set XDG_CACHE_HOME, or STRATA_CACHE_DIR for the data alone'
    raise ConfigError(f'this user has no home directory to keep a cache in; {advice}') from error
