"""Command lines: config fields as flags, with one-line error messages."""

import ast
import dataclasses
import inspect
import re
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from absl import flags

from research.errors import ConfigError, alike, unknown
from research.paths import experiments, local
from research.train.config import check_types, fits, set_field
from research.train.modules import import_file

PARSERS = {int: flags.IntegerParser(), float: flags.FloatParser(), bool: flags.BooleanParser()}
HELP = ('--help', '-help', '-h', '--helpshort', '--helpfull', '-?')


class PathParser(flags.ArgumentParser):
  """Parses a path flag to an absolute path; with `optional` also '', which is off."""

  def __init__(self, optional: bool = False):
    self._optional = optional

  def parse(self, argument: str | Path) -> str | Path:
    if self._optional and not argument:
      return ''
    try:
      return local(argument)
    except ConfigError as error:
      raise ValueError(str(error)) from error


class ConfigFlag(flags.Flag):
  """`--config=FILE[:SCALE]`. Its value becomes the config once `parse` has set the fields."""

  file = ''  # FILE[:SCALE]

  def __init__(self):
    note = 'experiment, by name or file, optionally with a scale: cnn_digits:fast'
    super().__init__(flags.ArgumentParser(), flags.ArgumentSerializer(), 'config', None, note)


class FieldFlag(flags.Flag):
  """`--config.NAME=VALUE`. Text that is not a value of type `kind` is left for `check_types`."""

  def __init__(self, name: str, kind: Any):
    super().__init__(
      flags.ArgumentParser(), None, f'config.{name}', None, '', boolean=kind is bool, allow_override=True
    )
    self.kind = kind

  def _parse(self, argument: str | None) -> Any:
    return argument if argument is None else read(argument, self.kind)


def define_config(values: flags.FlagValues = flags.FLAGS) -> flags.FlagHolder:
  """Defines `--config=FILE[:SCALE]`, whose value is the config, and `--config.FIELD=VALUE` for its fields."""
  if 'config' not in values:  # else defined by an importing command
    flags.DEFINE_flag(ConfigFlag(), values)
  return flags.FlagHolder(values, values['config'])


def parse(argv: list[str], optional: bool = False, words: bool = False) -> list[str]:
  """Parses the command line `argv`, starting with the program's name; raises a one-line ConfigError.

  optional: whether --config may be omitted.
  words: whether words that are not flags are returned, for a command without a config; otherwise they are an error.
  """
  argv = _expanded(argv)
  if set(argv[1:]) & set(HELP):
    print(help_text(argv))
    raise SystemExit(0)
  return _parsed(argv, flags.FLAGS, words) if words else _parse(argv, flags.FLAGS, optional)


def config_of(words: list[str]) -> Any:
  """The config of `--config=FILE --config.FIELD=VALUE ...`, checked as in `parse`; the process's flags are kept."""
  holder = define_config(values := flags.FlagValues())
  _parse(['config_of', *words], values)
  return holder.value


def _parse(argv: list[str], values: flags.FlagValues, optional: bool = False) -> list[str]:
  if 'config' not in values:
    return _parsed(argv, values)
  path = _config_path(argv)
  if not path:
    # Report other wrong words first: perhaps another command was meant.
    others = [word for word in argv if not re.match(r'--?(no)?config\.', word)]
    rest = _parsed(others, values)
    if optional and others == argv:
      return rest
    raise ConfigError(f'--config=FILE is missing; {_nearest_experiments("")}')
  config = load_config(path)
  names = _define_fields(config, values, argv, path)
  rest = _parsed(argv, values)
  for name in names:
    if (flag := values[f'config.{name}']).present:
      set_field(config, name, flag.value)
  check_types(config)
  values['config'].file, values['config'].value = path, config
  return rest


def _define_fields(config: Any, values: flags.FlagValues, argv: list[str], path: str) -> list[str]:
  """Defines a flag per field and returns their names. Raises ConfigError for unknown fields in `argv`."""
  kinds = {name: kind for name, _, kind, _ in fields(config)}
  for name, kind in kinds.items():
    flags.DEFINE_flag(FieldFlag(name, kind), values)
  for word in argv[1:]:
    match = re.match(r'--?(no)?config\.([^=]*)', word)
    if match and match[2] not in kinds:
      nearest = [name for name in kinds if name.startswith(f'{match[2]}.')][:5] or _nearest(match[2], list(kinds))
      raise ConfigError(f'config.{match[2]}: no field of {path}; nearest: {", ".join(nearest)}')
  return list(kinds)


def read(text: str, kind: Any) -> Any:
  """The value of type `kind` of a text, or the text itself if it has none."""
  origin, parts = get_origin(kind), get_args(kind)
  if origin is Literal:
    return next((part for part in parts if str(part) == text), text)
  if origin in (Union, UnionType):
    values = [(read(text, part), part) for part in sorted(parts, key=lambda part: part is str)]  # any text is a str
    return next((value for value, part in values if fits(value, part)), text)
  if tuple in (origin, kind):
    return _entries(text)
  if kind is NoneType:
    return None if text == 'None' else text
  try:
    return PARSERS[kind].parse(text) if kind in PARSERS else text
  except ValueError:
    return text


def _entries(text: str) -> tuple:
  """The entries of `(4, 8)`, `[4, 8]`, `4,8`, `4`, or of unquoted words such as `encoder/*,head/*`."""
  try:
    value = ast.literal_eval(text)
  except (ValueError, SyntaxError, TypeError):
    value = [word.strip() for word in text.split(',') if word.strip()]
  return tuple(value) if isinstance(value, (tuple, list)) else (value,)


def _expanded(argv: list[str]) -> list[str]:
  """The command line with every `--flagfile=FILE` expanded."""
  try:
    return flags.FLAGS.read_flags_from_files(argv)
  except (flags.Error, UnicodeDecodeError) as error:
    cause = error.__context__
    fault = f'={cause.filename}: {cause.strerror}' if isinstance(cause, OSError) else f': {error}'
    raise ConfigError(f'--flagfile{fault}; give a text file with a flag on each line') from error


def _parsed(argv: list[str], values: flags.FlagValues, words: bool = False) -> list[str]:
  values.set_gnu_getopt()  # otherwise a word that is not a flag would hide later ones
  try:
    rest = values(argv)
  except flags.UnrecognizedFlagError as error:
    raise ConfigError(f'--{error.flagname}: no such flag; {_flags_like(error.flagname, argv[0], values)}') from error
  except (flags.Error, ValueError) as error:
    raise ConfigError(_one_line(str(error), values)) from error
  if len(rest) > 1 and not words:
    raise ConfigError(f'{rest[1]!r} is not a flag; flags look like --name=value')
  return rest


def _one_line(message: str, values: flags.FlagValues) -> str:
  """An absl error in the format of all others."""
  message = ' '.join(message.split())
  if not (match := re.fullmatch(r'flag --([\w.]+)=(.*?): (.*)', message)):
    return message
  name, value, fault = match.groups()
  flag = values[name]
  if value == 'None':
    return f'--{name} is missing; it is: {flag.help}'
  if isinstance(flag, flags.EnumFlag):
    return f'--{name}={value}: {unknown(value, flag.parser.enum_values)}'
  if isinstance(flag.parser, flags.BooleanParser):
    return f'--{name}={value}: must be true or false'
  if isinstance(flag.parser, (flags.IntegerParser, flags.FloatParser)):
    fault = f'must be {flag.parser.syntactic_help}'
  return f'--{name}={value}: {fault}'


def _flags_like(name: str, program: str, values: flags.FlagValues) -> str:
  """The closest flags, or those of the command."""
  if near := alike(name, values):
    return f'nearest: {", ".join(f"--{other}" for other in near)}'
  return f'this command has {", ".join(f"--{flag.name}" for flag in _own_flags(program, values))}'


def config_file(path: str) -> Path:
  """The file of `FILE[:SCALE]`, or of `NAME[:SCALE]` for a folder in experiments/; raises ConfigError for neither."""
  name, known = path.partition(':')[0], experiments()
  if (file := local(name, '--config')).is_file():
    if file.suffix != '.py':
      raise ConfigError(f'--config={path}: not a Python file; {_nearest_experiments(name)}')
    return file
  if name in known:
    return known[name] / 'config.py'
  raise ConfigError(f'--config={path}: no such file or experiment; {_nearest_experiments(name)}')


def load_config(path: str) -> Any:
  """The config of `FILE[:SCALE]` or `NAME[:SCALE]`; raises ConfigError if there is none."""
  module, scale = import_file(config_file(path)), path.partition(':')[2]
  if not hasattr(module, 'get_config'):
    raise ConfigError(f'--config={path}: the file has no function get_config(scale)')
  if scale and not inspect.signature(module.get_config).parameters:
    raise ConfigError(f'--config={path}: get_config() of the file takes no scale; leave out :{scale}')
  config = module.get_config(*[scale] if scale else [])
  if not dataclasses.is_dataclass(config):
    raise ConfigError(f'--config={path}: get_config returned {type(config).__name__}, not a dataclass')
  return config


def help_text(argv: list[str]) -> str:
  """The program's docstring, its flags, and the fields of its config with types, values and comments."""
  lines = [inspect.getdoc(sys.modules['__main__']) or argv[0], '', 'Flags:']
  for flag in _own_flags(argv[0], flags.FLAGS):
    default = '' if flag.default is None else f' ({flag.default_as_str})'
    lines.append(f'  --{flag.name}: {" ".join(flag.help.split())}{default}')
  if 'config' not in flags.FLAGS:
    return '\n'.join(lines)
  path = _config_path(argv)
  if not path:
    return '\n'.join([*lines, '', f'--config=FILE --help lists the fields of a config; {_nearest_experiments("")}'])
  rows = [
    (f'--config.{name}={value!r}', inspect.formatannotation(kind), note)
    for name, value, kind, note in fields(load_config(path))
  ]
  widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
  lines += ['', f'Fields of {path}, with their values:']
  return '\n'.join(lines + [f'  {a:{widths[0]}}  {b:{widths[1]}}  {c}'.rstrip() for a, b, c in rows])


def _own_flags(program: str, values: flags.FlagValues) -> list[flags.Flag]:
  """The flags of a command and the shared ones, without absl's and the config's fields."""
  modules = [program, 'launch.flags', 'launch.app', 'launch.distributed', 'launch.cluster']
  found = dict.fromkeys(flag for name in modules for flag in values.get_key_flags_for_module(name))
  return [flag for flag in found if not isinstance(flag, FieldFlag)]


def fields(config: Any, prefix: str = '') -> Iterator[tuple[str, Any, Any, str]]:
  """Dotted name, value, type and comment of all fields of a dataclass, including nested ones."""
  notes, kinds = _comments(type(config)), get_type_hints(type(config))
  for field in dataclasses.fields(config):
    value = getattr(config, field.name)
    if dataclasses.is_dataclass(value):
      yield from fields(value, f'{prefix}{field.name}.')
    else:
      yield prefix + field.name, value, kinds[field.name], notes.get(field.name, '')


def _comments(cls: type) -> dict[str, str]:
  """The comment of each field in the source: on its line, or else above it."""
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
  """The value of --config, or ''. Raises ConfigError for two."""
  paths = {}
  for number, word in enumerate(argv):
    if match := re.fullmatch(r'--?config(=(.*))?', word, re.DOTALL):
      paths[match[2] if match[1] else ''.join(argv[number + 1 : number + 2])] = number
  paths.pop('', None)
  if len(paths) > 1:
    raise ConfigError(f'--config: is given as {" and as ".join(paths)}; give one')
  return next(iter(paths), '')


def _nearest(name: str, known: list[str]) -> list[str]:
  """Names that are similar, or whose last part is, best first."""
  same = [
    other
    for word in alike(name.split('.')[-1], [other.split('.')[-1] for other in known])
    for other in known
    if other.split('.')[-1] == word
  ]
  return list(dict.fromkeys([*same, *alike(name, known)]))[:3] or known


def _nearest_experiments(name: str) -> str:
  """The experiments with the closest names, or all."""
  known = experiments()
  parts = [part for part in Path(name).parts if part not in ('experiments', 'config.py')]
  near = alike(Path(parts[-1]).stem, known) if parts else []
  return f'nearest: {", ".join(near)}' if near else f'there are: {", ".join(known) or "no experiments yet"}'
