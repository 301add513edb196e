"""The folder of a run: one run at a time, one config for ever, and what is needed to run it again."""

import dataclasses
import errno
import fcntl
import hashlib
import importlib.util
import inspect
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import logging

from research.errors import ConfigError, DataError, WorkdirError, naming
from research.tasks.base import PyTree
from research.train.config import RESUMABLE, Config, flatten, from_fields
from research.train.environment import ROOT, environment

FULL = (errno.ENOSPC, errno.EDQUOT)


class Workdir:
  """Holds the folder of `config`'s run; a context manager.

  Raises:
    WorkdirError: the folder cannot be written, is in use or belongs to another config; nothing in it has changed.
  """

  def __init__(self, path: str | os.PathLike, config: Config):
    self.path = Path(path)
    self.config = config
    self._lock = None

  def __enter__(self) -> 'Workdir':
    try:
      self.path.mkdir(parents=True, exist_ok=True)
      self._lock = (self.path / 'lock').open('a')
    except OSError as error:
      if error.errno in FULL:
        raise
      raise WorkdirError(f'workdir {self.path}: {error.strerror}; give a folder that can be written') from error
    try:
      fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
      self._refuse_others()
    except BlockingIOError as error:
      self._lock.close()
      raise WorkdirError(f'workdir {self.path}: another run is using it; wait for it or give another') from error
    except BaseException:
      self._lock.close()
      raise
    return self

  def __exit__(self, *exception):
    self._lock.close()

  def note_start(self, fingerprints: Mapping[str, str]) -> None:
    """Writes config.json and adds to environment.json; sooner, a config that cannot be built would own the folder.

    Raises DataError when the data are not those of the starts before.
    """
    path = self.path / 'environment.json'
    starts = _starts(path)
    if starts and starts[-1]['data'] != fingerprints:
      changed = [name for name in fingerprints if starts[-1]['data'].get(name) != fingerprints[name]]
      raise DataError(
        f'the {changed[0]} examples are not those that {self.path} began with; use those or a new workdir'
      )
    config = {'file': _config_file(self.config), 'config': dataclasses.asdict(self.config)}
    write_json(self.path / 'config.json', config)
    write_json(path, [*starts, {**environment(), 'data': dict(fingerprints)}])

  def check(self) -> None:
    """Raises WorkdirError where the folder was moved, deleted or replaced: it would be made anew, half empty."""
    lock = self.path / 'lock'
    if not (lock.exists() and os.path.samestat(lock.stat(), os.fstat(self._lock.fileno()))):
      fault = f'workdir {self.path}: was moved, deleted or replaced during the run'
      raise WorkdirError(f'{fault}; put it back and give the same command again')

  def _refuse_others(self) -> None:
    if (self.path / 'config.json').exists():
      _refuse_differences(_facts(load_config(self.path)), _facts(self.config), self.path)
    elif any(child.name not in ('lock', 'config.json.tmp') for child in self.path.iterdir()):
      raise WorkdirError(f'workdir {self.path}: has files but no config.json, so it is no run; give another')


def load_config(workdir: Path) -> Config:
  """The config of the run in `workdir`. Raises WorkdirError when there is none."""
  try:
    saved = json.loads((workdir / 'config.json').read_text())
    cls = import_file(ROOT / saved['file']).Config
    return from_fields(cls, saved['config'])
  except FileNotFoundError as error:
    missing = f'workdir {workdir}: {error.filename} is missing'
    raise WorkdirError(f'{missing}, so there is no run to use; give the workdir of a run') from error
  except (ValueError, KeyError, ConfigError) as error:
    fault = f'workdir {workdir}: config.json does not fit the code: {error}'
    raise WorkdirError(f'{fault}; use the code of the commit in environment.json') from error


def import_file(path: Path) -> Any:
  """The module in a Python file."""
  if not path.is_file():
    raise FileNotFoundError(2, 'no such file', str(path))
  name = '.'.join(path.with_suffix('').parts[-3:])
  spec = importlib.util.spec_from_file_location(name, path)
  module = importlib.util.module_from_spec(spec)
  sys.modules[name] = module
  spec.loader.exec_module(module)
  return module


def write_json(path: Path, content: Any) -> None:
  """Writes whole or not at all."""
  temporary = path.with_name(path.name + '.tmp')
  with naming(temporary), temporary.open('w') as file:
    json.dump(content, file, indent=2)
    file.write('\n')
    file.flush()
    os.fsync(file.fileno())
  temporary.replace(path)


def tree_sha256(tree: PyTree) -> str:
  """Hash of the leaves in path order: equal if and only if every bit is."""
  digest = hashlib.sha256()
  for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
    array = np.asarray(leaf)
    digest.update(f'{jax.tree_util.keystr(path)} {array.dtype} {array.shape}'.encode())
    digest.update(array.tobytes())
  return digest.hexdigest()


def _starts(path: Path) -> list[dict[str, Any]]:
  """What environment.json tells of the starts before."""
  try:
    return json.loads(path.read_text()) if path.exists() else []
  except ValueError as error:
    lost = 'delete it to go on, the data are then not compared with those of the starts before'
    raise WorkdirError(f'{path} is damaged: {error}; {lost}') from error


def _config_file(config: Config) -> str:
  path = Path(inspect.getfile(type(config))).resolve()
  return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else str(path)


def _facts(config: Config) -> dict[str, Any]:
  return {'file': _config_file(config), **flatten(config)}


def _refuse_differences(old: Mapping[str, Any], new: Mapping[str, Any], path: Path) -> None:
  names = [name for name in {**old, **new} if old.get(name) != new.get(name) and name not in RESUMABLE]
  if names:
    rows = '; '.join(f'{name}: {old.get(name)} there, {new.get(name)} now' for name in names)
    raise WorkdirError(f'workdir {path} belongs to another config ({rows}); give another workdir')
  if old['steps'] != new['steps'] and not new['optimizer.schedule_steps'] and new['optimizer.schedule'] != 'constant':
    logging.warning('config.steps: other steps change the learning rate from here on; schedule_steps would hold it')
