"""The Python files of configs: importing them, and finding a config's class again."""

import ast
import errno
import hashlib
import importlib.util
import inspect
import operator
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from research.errors import ConfigError
from research.paths import ROOT

ROOMS = ('research', 'experiments')  # packages whose code affects results


def import_file(path: Path) -> ModuleType:
  """Imports a Python file, once per process.

  A file in experiments/ is the same module as `import experiments...`, so its classes exist once and can be pickled.
  Any other file gets a unique name and may import modules next to it.

  Raises:
    FileNotFoundError: no such file.
    ConfigError: not a Python file, or it would import another module instead of one next to it.
  """
  path = path.resolve()
  if not path.is_file():
    raise FileNotFoundError(errno.ENOENT, 'no such file', str(path))
  if path.suffix != '.py':
    raise ConfigError(f'{path}: not a Python file')
  parts = path.relative_to(ROOT).with_suffix('').parts if path.is_relative_to(ROOT / 'experiments') else ('',)
  if all(map(str.isidentifier, parts)):
    return importlib.import_module('.'.join(parts))
  name = f'{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}'
  return sys.modules.get(name) or _import_as(name, path)


def home_of(config: Any) -> tuple[str, str]:
  """File and name of a config's class; files in the repository are relative to it.

  Raises ConfigError for a class defined in a notebook, script or function, which no other process could import.
  """
  cls = type(config)
  if cls.__module__ == '__main__' or '<locals>' in cls.__qualname__:
    place = 'a notebook or script' if cls.__module__ == '__main__' else 'a function'
    raise ConfigError(
      f'config: its class {cls.__name__} is defined in {place}, where a workdir cannot find it later; '
      'move it to a file and import it from there, or train without a workdir'
    )
  return _short(_file_of(config)), cls.__qualname__


def experiment_name(config: Any) -> str:
  """What pictures call the experiment of a config."""
  return name_of(_file_of(config))


def name_of(file: Path) -> str:
  """The name of an experiment by its config's file: that of the folder, or of a file that is not called config.py."""
  return file.parent.name if file.name == 'config.py' else file.stem


def class_at(file: str, name: str) -> type:
  """The class of the given file and name, as from `home_of`. Raises ConfigError if there is none."""
  module = import_file(ROOT / file)
  try:
    return operator.attrgetter(name)(module)
  except AttributeError as error:
    raise ConfigError(f'{file} has no class {name}') from error


def code_of(config: Any) -> dict[str, str]:
  """The code of a run: truncated sha256 by path, of the config's file and of all modules imported so far
  from research/, experiments/ and the config's folder.
  """
  own = _file_of(config)
  homes = {**{file.stem: own.parent for file in own.parent.iterdir()}, **dict.fromkeys(ROOMS, ROOT)}
  files = {own}
  for name, module in sys.modules.copy().items():
    top, file = name.partition('.')[0], getattr(module, '__file__', None)
    if file and top in homes and file.startswith((f'{homes[top] / top}.py', f'{homes[top] / top}/')):
      files.add(Path(file))
  return {_short(file): hashlib.sha256(file.read_bytes()).hexdigest()[:12] for file in sorted(files) if file.is_file()}


def _file_of(config: Any) -> Path:
  return Path(inspect.getfile(type(config))).resolve()


def _short(path: Path) -> str:
  return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else str(path)


def _import_as(name: str, path: Path) -> ModuleType:
  if (folder := str(path.parent)) not in sys.path:
    sys.path.append(folder)
  _check_neighbors(path)
  spec = importlib.util.spec_from_file_location(name, path)
  module = sys.modules[name] = importlib.util.module_from_spec(spec)
  try:
    spec.loader.exec_module(module)
  except BaseException:
    del sys.modules[name]
    raise
  return module


def _check_neighbors(path: Path) -> None:
  """Raises ConfigError if the file imports a module next to it, but `import` would find another of that name."""
  nodes = list(ast.walk(ast.parse(path.read_bytes(), str(path))))
  names = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
  names += [node.module for node in nodes if isinstance(node, ast.ImportFrom) and not node.level]
  for top in dict.fromkeys(name.partition('.')[0] for name in names):
    beside = next(filter(Path.is_file, (path.parent / f'{top}.py', path.parent / top / '__init__.py')), None)
    if beside and Path(found := importlib.util.find_spec(top).origin).resolve() != beside:
      raise ConfigError(f'{path} imports {top}, which is {found} and not {beside}; give the latter another name')
