"""The workdir of a run, locked while in use and bound to one config."""

import dataclasses
import errno
import fcntl
import hashlib
import json
import operator
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import IO, Any

from absl import logging

from research.errors import ConfigError, DataError, WorkdirError, naming
from research.parallel import placement, processes
from research.paths import ROOT, local
from research.train import description
from research.train.checkpoint import by_name
from research.train.config import RESUMABLE, START, Config, check_comes_back, flatten, from_fields
from research.train.environment import changes, environment, software
from research.train.modules import class_at, home_of
from research.train.optimizer import PHASED
from research.types import PyTree

FULL = (errno.ENOSPC, errno.EDQUOT)


class Workdir:
  """Locks the workdir of `config`'s run; a context manager. With many processes the first one holds the lock.

  Raises:
    ConfigError: the config could not be loaded again.
    WorkdirError: the folder is not writable, is in use or belongs to another config; it is left unchanged.
  """

  def __init__(self, path: str | os.PathLike, config: Config):
    self.path = local(path, 'workdir')
    self.config = config
    self._facts = facts_of(config)
    check_comes_back(config)
    self._lock = None

  def __enter__(self) -> 'Workdir':
    if not processes.is_first():
      return self
    self._lock = take(self.path, 'workdir', 'run')
    try:
      self._refuse_others()
    except BaseException:
      self._lock.close()
      raise
    return self

  def __exit__(self, *exception):
    if self._lock:
      self._lock.close()

  def check_start(self) -> None:
    """Raises WorkdirError if a run without a checkpoint would start from a different run than before."""
    if (self.path / 'config.json').exists():
      _refuse_differences(facts_of(saved_config(self.path)), self._facts, self.path, START)

  def note_config(self, fingerprints: Mapping[str, str]) -> None:
    """Writes config.json, after the experiment is built, so that an invalid config does not claim the folder.

    Raises DataError if the data differ from those of the previous start.
    """
    data = starts[-1]['data'] if (starts := self.starts()) else {}
    for part in fingerprints:
      if data.get(part, fingerprints[part]) != fingerprints[part]:
        fault = f'the {part} examples differ from those that {self.path} was started with'
        raise DataError(f'{fault}; use those or a new workdir')
    self.result()  # one that is damaged is reported first
    if (self.path / 'config.json').exists():
      _tell_of_other_steps(saved_config(self.path), self.config)
    file, name = home_of(self.config)
    write_json(self.path / 'config.json', {'file': file, 'class': name, 'config': dataclasses.asdict(self.config)})

  def note_network(self, text: str) -> None:
    """Writes network.json. Raises DataError if the run began with a different one."""
    before = self.starts()[-1].get(description.NAME) if self.starts() else None
    if before not in (None, description.sha256_of(text)):
      fault = f'workdir {self.path}: fitting on the training data no longer gives what is in {description.NAME}'
      raise DataError(f'{fault}; use the code and versions in environment.json, or a new workdir')
    write_text(self.path / description.NAME, text)

  def note_start(self, step: int, fingerprints: Mapping[str, str], described: str = '') -> None:
    """Records in environment.json that the run continues at `step`; warns if code or versions have changed."""
    sums = {'data': dict(fingerprints)} | ({description.NAME: description.sha256_of(described)} if described else {})
    starts = [*self.starts(), {'step': step, **environment(self.config), **sums}]
    if what := changes(starts).get(step):
      logging.warning(f'workdir {self.path}: continues at step {step}, but code or versions have changed: {what}')
    write_json(self.path / 'environment.json', starts)

  def note_source(self, facts: Mapping[str, Any]) -> None:
    """Records in environment.json what this start loaded from another run."""
    *before, last = self.starts()
    write_json(self.path / 'environment.json', [*before, {**last, 'init_from': facts}])

  def starts(self) -> list[dict[str, Any]]:
    """The content of environment.json, a dict per start."""
    path = self.path / 'environment.json'
    lost = 'delete it to continue, without comparing the data with those of earlier starts'
    return _read_json(path, _starts_in, lost) if path.exists() else []

  def result(self) -> dict[str, Any] | None:
    """The content of result.json; None if it is missing."""
    path = self.path / 'result.json'
    return _read_json(path, _result_in, 'delete it, and the same command writes it again') if path.exists() else None

  def drop_result(self) -> None:
    """Deletes result.json: a run that continues has no result yet."""
    (self.path / 'result.json').unlink(missing_ok=True)

  def check(self) -> None:
    """Raises WorkdirError if the folder was moved, deleted or replaced; writing would recreate it half empty."""
    lock = self.path / 'lock'
    if self._lock and not (lock.exists() and os.path.samestat(lock.stat(), os.fstat(self._lock.fileno()))):
      fault = f'workdir {self.path}: was moved, deleted or replaced during the run'
      raise WorkdirError(f'{fault}; put it back and run the same command again')

  def _refuse_others(self) -> None:
    if (self.path / 'config.json').exists():
      old = facts_of(saved_config(self.path))
      fixed = [name for name in {**old, **self._facts} if name not in RESUMABLE]
      _refuse_differences(old, self._facts, self.path, fixed)
    elif any(child.name not in ('lock', 'config.json.tmp') for child in self.path.iterdir()):
      raise WorkdirError(f'workdir {self.path}: has files but no config.json, so it is not a run; give another')


def take(folder: Path, kind: str, user: str) -> IO[str]:
  """Creates a folder and locks it until the returned file is closed. Raises WorkdirError."""
  try:
    folder.mkdir(parents=True, exist_ok=True)
    lock = (folder / 'lock').open('a')
  except OSError as error:
    if error.errno in FULL:
      raise
    raise WorkdirError(f'{kind} {folder}: {error.strerror}; give a writable folder') from error
  try:
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
  except OSError as error:
    lock.close()
    if isinstance(error, BlockingIOError):
      raise WorkdirError(f'{kind} {folder}: another {user} is using it; wait for it or give another') from error
    raise WorkdirError(f'{kind} {folder}: {error.strerror}; give a folder on a disk that has file locks') from error
  return lock


def in_use(folder: Path) -> bool:
  """Whether a process holds the lock of a folder, which need not exist."""
  if not (folder / 'lock').exists():
    return False
  try:
    take(folder, 'workdir', 'run').close()
  except WorkdirError as error:
    return isinstance(error.__cause__, BlockingIOError)
  return False


def agree_on_run(config: Config, workdir: str | os.PathLike) -> None:
  """Raises ConfigError in every process if their configs, workdirs, code or versions differ."""
  if processes.alone():
    return
  values = {f'config.{name}': str(value) for name, value in flatten(config).items()}
  here = software(config)
  commit = {'commit': here['commit'].removesuffix('-dirty')} if here['commit'] else {}  # edited files are in `code`
  own = {'class': type(config).__qualname__, 'workdir': str(workdir), 'python': here['python']}
  processes.agree({**own, **values, **commit, **here['versions'], **here['code']})


def saved_config(workdir: str | os.PathLike) -> Config:
  """The config of the run in `workdir`. Raises WorkdirError if there is none."""
  path = local(workdir, 'workdir') / 'config.json'
  if not path.exists():
    raise WorkdirError(f'workdir {workdir}: {path} is missing, so there is no run to use; give the workdir of a run')
  try:
    saved = json.loads(path.read_text())
    if not (file := ROOT / saved['file']).is_file():
      raise WorkdirError(f'{path} names {file}, which does not exist; put it back, or change its path in config.json')
    return from_fields(class_at(saved['file'], saved.get('class', 'Config')), saved['config'])
  except (ValueError, KeyError, TypeError, ImportError, ConfigError) as error:
    fault = f'workdir {workdir}: config.json does not fit the code: {error}'
    raise WorkdirError(f'{fault}; use the code of the commit in environment.json') from error


def _read_json(path: Path, pick: Callable[[Any], Any], advice: str) -> Any:
  """`pick` of a file's JSON. Raises WorkdirError if the file is not JSON or `pick` fails."""
  try:
    return pick(json.loads(path.read_text()))
  except (ValueError, KeyError, TypeError) as error:
    raise WorkdirError(f'{path} is damaged: {error}; {advice}') from error


def _starts_in(content: Any) -> list[dict[str, Any]]:
  for start in content:
    operator.itemgetter('data', 'python', 'versions')(start)  # raises if one is missing
  return list(content)


def _result_in(content: Any) -> dict[str, Any]:
  operator.itemgetter('steps', 'metrics')(content)  # raises where one is missing
  return content


def write_json(path: Path, content: Any) -> None:
  """Writes atomically."""
  write_text(path, json.dumps(content, indent=2, allow_nan=False) + '\n')


def write_text(path: Path, text: str) -> None:
  """Writes whole or not at all."""
  temporary = path.with_name(path.name + '.tmp')
  with naming(temporary), temporary.open('w', encoding='utf-8') as file:
    file.write(text)
    file.flush()
    os.fsync(file.fileno())
  temporary.replace(path)


def tree_sha256(tree: PyTree) -> str:
  """Hash of all leaves, in the order of their names, for bitwise comparison. All processes must call it."""
  digest = hashlib.sha256()
  for name, leaf in sorted(by_name(tree).items()):
    array = placement.fetch(leaf)
    digest.update(f'{name} {array.dtype} {array.shape}'.encode())
    digest.update(array.tobytes())
  return digest.hexdigest()


def facts_of(config: Config) -> dict[str, Any]:
  """What identifies a config's runs: its class, and its fields by dotted name."""
  file, name = home_of(config)
  return {'file': file, 'class': name, **flatten(config)}


def differences(old: Mapping[str, Any], new: Mapping[str, Any], names: Iterable[str]) -> str:
  """The values of `names` there and now, on one line."""
  return '; '.join(f'{name}: {old.get(name)} there, {new.get(name)} now' for name in names)


def _refuse_differences(old: Mapping[str, Any], new: Mapping[str, Any], path: Path, names: Iterable[str]) -> None:
  names = [name for name in names if old.get(name) != new.get(name)]
  if names:
    rows = differences(old, new, names)
    raise WorkdirError(f'workdir {path} belongs to another config ({rows}); give another workdir')


def _tell_of_other_steps(old: Config, new: Config) -> None:
  if old.steps != new.steps and new.optimizer.schedule in PHASED and not new.optimizer.schedule_steps:
    logging.warning(
      f'config.steps={new.steps}: was {old.steps}, and the learning rate schedule depends on it and changes; '
      f'config.optimizer.schedule_steps={old.steps} would keep it'
    )
