"""Command lines: a config file whose fields are flags, and messages that say what is wrong in one line."""

import ast
import dataclasses
import difflib
import importlib.util
import inspect
import re
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args, get_origin

from absl import flags
from ml_collections import config_flags

from research.errors import ConfigError

ROOT = Path(__file__).resolve().parent.parent
HELP = ('--help', '-help', '-h', '--helpshort', '--helpfull', '-?')


def define_config() -> flags.FlagHolder:
  """Defines `--config=FILE[:SCALE]`, whose value is the config, and `--config.FIELD=VALUE` for its fields; once."""
  if 'config' in flags.FLAGS:  # by a launcher that another one imports
    return flags.FlagHolder(flags.FLAGS, flags.FLAGS['config'])
  return config_flags.DEFINE_config_file('config', None, 'file of the experiment; :SCALE after it if wanted')


def parse(argv: list[str], unless: str = '') -> list[str]:
  """Parses the command line `argv`, the program's name first; raises ConfigError, one line, for any mistake.

  With the flag `unless` given a launcher that has a config can do without.
  """
  if set(argv[1:]) & set(HELP):
    print(help_text(argv))
    raise SystemExit(0)
  return _parse(argv, flags.FLAGS, unless)


def config_of(words: list[str]) -> Any:
  """The config of `--config=FILE --config.FIELD=VALUE ...`, checked as in `parse`; no flag of the process changes."""
  values, argv = flags.FlagValues(), ['config_of', *words]
  config_flags.DEFINE_config_file('config', None, '', flag_values=values, sys_argv=argv)
  _parse(argv, values)
  return values.config


def override(field: str, value: Any) -> str:
  """The word of a command line that sets a field of the config."""
  return f'--config.{field}={value}'


def _parse(argv: list[str], values: flags.FlagValues, unless: str = '') -> list[str]:
  has_config = 'config' in values and not (unless and any(word.startswith(f'--{unless}=') for word in argv))
  if has_config:
    _check_overrides(argv)
  try:
    rest = values(argv)
  except flags.Error as error:
    raise ConfigError(_one_line(str(error), argv)) from error
  if len(rest) > 1:
    raise ConfigError(f'{rest[1]!r} is not a flag; flags look like --name=value')
  if has_config:
    _check_types(values.config, _config_path(argv))
  return rest


def load_config(path: str) -> Any:
  """The config of `FILE[:SCALE]`; raises ConfigError where there is none."""
  name, _, scale = path.partition(':')
  if not Path(name).is_file():
    raise ConfigError(f'--config={path}: no such file; {_experiments(name)}')
  spec = importlib.util.spec_from_file_location(f'config {Path(name).resolve()}', name)
  if spec is None:
    raise ConfigError(f'--config={path}: not a Python file; {_experiments(name)}')
  module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  if not hasattr(module, 'get_config'):
    raise ConfigError(f'--config={path}: the file has no function get_config(scale)')
  config = module.get_config(*[scale] if scale else [])
  if not dataclasses.is_dataclass(config):
    raise ConfigError(f'--config={path}: get_config returned {type(config).__name__}, not a dataclass')
  return config


def help_text(argv: list[str]) -> str:
  """The program's docstring, its flags, and the fields of its config with types, values and comments."""
  lines = [inspect.getdoc(sys.modules['__main__']) or argv[0], '', 'Flags:']
  modules = [argv[0], 'launch.flags', 'launch.app', 'launch.distributed', 'launch.cluster']
  for flag in dict.fromkeys(flag for name in modules for flag in flags.FLAGS.get_key_flags_for_module(name)):
    default = '' if flag.default is None else f' ({flag.default_as_str})'
    lines.append(f'  --{flag.name}: {" ".join(flag.help.split())}{default}')
  if 'config' not in flags.FLAGS:
    return '\n'.join(lines)
  path = _config_path(argv)
  if not path:
    return '\n'.join([*lines, '', f'--config=FILE --help lists the fields of a config; {_experiments("")}'])
  rows = [
    (f'--config.{name}={value!r}', inspect.formatannotation(kind), note)
    for name, value, kind, note in fields(load_config(path))
  ]
  widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
  lines += ['', f'Fields of {path}, with their values:']
  return '\n'.join(lines + [f'  {a:{widths[0]}}  {b:{widths[1]}}  {c}'.rstrip() for a, b, c in rows])


def fields(config: Any, prefix: str = '') -> Iterator[tuple[str, Any, Any, str]]:
  """Dotted name, value, type and comment of every field of a dataclass, the nested ones too."""
  notes = _comments(type(config))
  for field in dataclasses.fields(config):
    value = getattr(config, field.name)
    if dataclasses.is_dataclass(value):
      yield from fields(value, f'{prefix}{field.name}.')
    else:
      yield prefix + field.name, value, field.type, notes.get(field.name, '')


def _comments(cls: type) -> dict[str, str]:
  """Comment of each field, from the source: the one on its line, or else the lines above it."""
  notes = {}
  for base in reversed(cls.__mro__[:-1]):
    source = textwrap.dedent(inspect.getsource(base))
    lines = source.splitlines()
    for node in ast.parse(source).body[0].body:
      if isinstance(node, ast.AnnAssign):
        trailing = lines[node.end_lineno - 1].encode()[node.end_col_offset :].decode()
        notes[node.target.id] = trailing.strip(' #') or _above(lines, node.lineno - 1)
  return notes


def _above(lines: list[str], row: int) -> str:
  first = row
  while lines[first - 1].lstrip().startswith('#'):
    first -= 1
  return ' '.join(line.strip(' #') for line in lines[first:row])


def _config_path(argv: list[str]) -> str:
  """The last value of --config."""
  path = ''
  for number, word in enumerate(argv):
    if match := re.fullmatch(r'--?config(=(.*))?', word):
      path = match[2] if match[1] else ''.join(argv[number + 1 : number + 2])
  return path


def _check_overrides(argv: list[str]) -> None:
  path = _config_path(argv)
  if not path:
    raise ConfigError(f'--config=FILE is missing; {_experiments("")}')
  config = load_config(path)
  known = [name for name, *_ in fields(config)]
  for word in argv[1:]:
    match = re.match(r'--?(no)?config\.([^=]*)', word)
    if match and match[2] not in known:
      nearest = [name for name in known if name.startswith(f'{match[2]}.')][:5] or _nearest(match[2], known)
      raise ConfigError(f'config.{match[2]}: no field of {path}; nearest: {", ".join(nearest)}')


def _nearest(name: str, known: list[str]) -> list[str]:
  """Names that look alike as a whole or in their last part, best first."""
  last = name.lower().split('.')[-1]
  alike = difflib.get_close_matches(last, [other.split('.')[-1] for other in known], 3, 0.6)
  same = [other for word in alike for other in known if other.split('.')[-1] == word]
  return list(dict.fromkeys([*same, *difflib.get_close_matches(name.lower(), known, 3, 0.6)]))[:3] or known


def _check_types(config: Any, path: str) -> None:
  """The parser of a tuple does not look at its entries."""
  for name, value, kind, _ in fields(config):
    if get_origin(kind) is tuple and isinstance(entry := get_args(kind)[0], type):
      wrong = [item for item in value if not isinstance(item, (int, float) if entry is float else entry)]
      if wrong:
        text = inspect.formatannotation(kind)
        raise ConfigError(f'config.{name}: {wrong[0]!r} is not {entry.__name__}; {path} has {text} there')


def _one_line(message: str, argv: list[str]) -> str:
  """What absl says, and for a field of the config its type."""
  message, path = ' '.join(message.split()), _config_path(argv)
  match = re.search(r'--config\.([\w.]+)', message)
  if match and path:
    kinds = {name: inspect.formatannotation(kind) for name, _, kind, _ in fields(load_config(path))}
    message += f'; {path} has {kinds.get(match[1], "no such field")} there'
  return message


def _experiments(name: str) -> str:
  """The config files that are nearest to `name`, or all."""
  paths = [str(path.relative_to(ROOT)) for path in sorted(ROOT.glob('experiments/*/config.py'))]
  folders = {Path(path).parent.name: path for path in paths}
  parts = [part for part in Path(name).parts if part not in ('experiments', 'config.py')]
  alike = difflib.get_close_matches(Path(parts[-1]).stem, folders, 3, 0.5) if parts else []
  return f'there are: {", ".join([folders[folder] for folder in alike] or paths or ["no experiments yet"])}'
