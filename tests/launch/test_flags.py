"""Command lines, right and wrong, and the exit codes of a launcher."""

import pickle
from pathlib import Path

import pytest
from absl import flags as absl_flags

from launch import app, flags
from research.errors import ConfigError

ROOT = Path(app.__file__).parent.parent

CONFIG = """
from __future__ import annotations

import dataclasses
from typing import Literal


@dataclasses.dataclass(frozen=True)
class Inner:
  lr: float = 0.1  # highest learning rate
  # of the rule,
  # by its name
  name: str = 'adam'


@dataclasses.dataclass
class Base:
  steps: int = 10  # updates of the parameters


@dataclasses.dataclass
class Config(Base):
  inner: Inner = dataclasses.field(default_factory=Inner)
  hidden_sizes: tuple[int, ...] = (8, 8)  # µ: units of each layer
  bold: bool = False  # whether "#" is shown
  rule: Literal['adam', 'sgd', 3] = 'adam'
  limit: int | None = None
  freeze: tuple[str, ...] = ()


def get_config(scale=''):
  return Config(steps=2) if scale == 'tiny' else Config()
"""


@pytest.fixture
def path(tmp_path):
  file = tmp_path / 'config.py'
  file.write_text(CONFIG)
  return str(file)


@pytest.fixture
def parse(path, monkeypatch):
  """Parses flags of its own, so that the process has none left over."""

  def parse(*words, **options):
    values = absl_flags.FlagValues()
    argv = ['toy', *(word.replace('FILE', path) for word in words)]
    flags.define_config(values)
    monkeypatch.setattr(flags.flags, 'FLAGS', values)
    flags.parse(argv, **options)
    return values.config

  return parse


def test_fields_are_overridden_with_their_types(parse):
  config = parse('--config=FILE', '--config.inner.lr=3e-4', '--config.hidden_sizes=4,5', '--config.bold')
  assert (config.inner.lr, config.hidden_sizes, config.bold, config.steps) == (3e-4, (4, 5), True, 10)
  assert parse('--config=FILE:tiny').steps == 2
  assert parse('--config', 'FILE', '--config.steps', '3').steps == 3
  assert parse('--config=FILE', '--noconfig.bold').bold is False
  assert parse('--config.steps=3', '--config=FILE').steps == 3


@pytest.mark.parametrize(
  ('word', 'value'),
  [
    ('rule=sgd', 'sgd'),
    ('rule=3', 3),
    ('limit=7', 7),
    ('limit=None', None),
    ('hidden_sizes=[4, 8]', (4, 8)),
    ('hidden_sizes=4', (4,)),
    ('hidden_sizes=', ()),
    ('freeze=head/*', ('head/*',)),
    ('freeze=head/*, body', ('head/*', 'body')),
    ("freeze=('head/*', 'body')", ('head/*', 'body')),
  ],
)
def test_the_type_of_a_field_reads_its_text(parse, word, value):
  assert getattr(parse('--config=FILE', f'--config.{word}'), word.partition('=')[0]) == value


def test_a_config_of_the_repository_is_of_the_class_that_others_import(parse):
  from experiments.cnn_digits.config import Config

  config = parse(f'--config={ROOT}/experiments/cnn_digits/config.py', '--config.steps=3')
  assert type(config) is Config
  assert pickle.loads(pickle.dumps(config)) == config


def test_a_config_is_found_by_the_name_of_its_folder(parse, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  by_path = parse(f'--config={ROOT}/experiments/cnn_digits/config.py:tiny', '--config.steps=3')
  assert parse('--config=cnn_digits:tiny', '--config.steps=3') == by_path != parse('--config=cnn_digits')
  assert type(parse('--config', 'cnn_digits')) is type(by_path)
  assert flags.config_file('cnn_digits:tiny') == ROOT / 'experiments/cnn_digits/config.py'
  Path('cnn_digits').write_text(CONFIG)
  with pytest.raises(ConfigError, match='--config=cnn_digits: not a Python file'):  # what exists comes first
    parse('--config=cnn_digits')


@pytest.mark.parametrize(
  ('words', 'told'),
  [
    (['--config.inner.lrr=1'], ['config.inner.lrr', 'nearest: inner.lr', 'config.py']),
    (['--config.lr=1'], ['config.lr', 'nearest: inner.lr']),
    (['--config.Stesp=1'], ['config.Stesp', 'nearest: steps']),
    (['--config.inner=adam'], ['config.inner', 'inner.lr, inner.name']),
    (['--config.steps=1.5'], ["config.steps='1.5': must be int"]),
    (['--config.inner.lr=fast'], ["config.inner.lr='fast': must be float"]),
    (['--config.inner.lr=nan'], ['config.inner.lr=nan: must be finite']),
    (['--config.bold=perhaps'], ["config.bold='perhaps': must be bool"]),
    (['--noconfig.bold=1'], ['--noconfig.bold=1 does not take an argument']),
    (['--config.hidden_sizes=("a",)'], ["config.hidden_sizes=('a',): must be tuple[int, ...]"]),
    (['--config.hidden_sizes=True,8'], ['config.hidden_sizes=(True, 8): must be tuple[int, ...]']),
    (['--config.rule=Adamm'], ["config.rule='Adamm': is unknown; nearest: adam"]),
    (['--config.limit=many'], ["config.limit='many': must be int | None"]),
    (['--confg=x'], ['--confg: no such flag; nearest: --config']),
    (['--config=other.py'], ['--config: is given as', 'config.py and as other.py; give one']),
    (['--config'], ['Missing value for flag --config']),
    (['surplus'], ["'surplus'", '--name=value']),
    (['surplus', '--config.stesp=1'], ['nearest: steps']),
  ],
)
def test_a_mistake_is_told_in_one_line(parse, words, told):
  with pytest.raises(ConfigError) as error:
    parse('--config=FILE', *words)
  assert all(word in str(error.value) for word in told) and '\n' not in str(error.value)


def test_a_flagfile_is_as_its_words_on_the_command_line(parse, path, tmp_path):
  file, inner = tmp_path / 'flags.txt', tmp_path / 'inner.txt'
  inner.write_text('--config.hidden_sizes=4,5\n')
  file.write_text(f'# a comment\n\n--config={path}\n--config.steps=3\n--flagfile={inner}\n')
  config = parse(f'--flagfile={file}', '--config.inner.lr=0.2')
  assert (config.steps, config.hidden_sizes, config.inner.lr) == (3, (4, 5), 0.2)
  assert parse('--config.steps=4', '--flagfile', str(file)).steps == 3


def test_a_config_may_be_optional_but_its_fields_are_not_without_it(parse):
  assert parse(optional=True) is None
  with pytest.raises(ConfigError, match='--config=FILE is missing'):
    parse('--config.steps=3', optional=True)


@pytest.mark.parametrize(
  ('text', 'told'),
  [
    ('--config=FOLDER/gone.py', ['--config=', 'gone.py: no such file']),
    ('--config=FOLDER/config.py\n--config.stesp=1', ['config.stesp: no field', 'nearest: steps']),
    ('--config.steps=1', ['--config=FILE is missing']),
    ('', ['--config=FILE is missing']),
    ('--flagfile=FOLDER/gone.txt', ['--flagfile=', 'gone.txt: No such file', 'a flag on each line']),
    (b'\x80', ['--flagfile: ', "can't decode", 'text file']),
    ('--flagfile', ['--flagfile: ', 'text file']),
    (None, ['--flagfile=', 'flags.txt: No such file', 'a flag on each line']),
  ],
)
def test_a_mistake_in_a_flagfile(parse, path, tmp_path, text, told):
  file = tmp_path / 'flags.txt'
  if text is not None:
    file.write_bytes(text if isinstance(text, bytes) else text.replace('FOLDER', str(tmp_path)).encode())
  with pytest.raises(ConfigError) as error:
    parse(f'--flagfile={file}')
  assert all(word in str(error.value) for word in told) and '\n' not in str(error.value)


@pytest.mark.parametrize(
  ('word', 'told'),
  [
    ('--rounds=1', '--rounds=1: must be integer >= 2'),
    ('--rounds=few', '--rounds=few: must be integer >= 2'),
    ('--size=0', '--size=0: must be a positive integer'),
    ('--share=much', '--share=much: must be a number'),
    ('--quiet=perhaps', '--quiet=perhaps: must be true or false'),
    ('--runner=Slurn', '--runner=Slurn: is unknown; nearest: slurm'),
    ('--seeds=a', "--seeds=['a']: must be such as 0,1,2"),
    ('--folder=gs://b/x', '--folder=gs://b/x: is an address'),
    ('', '--place is missing; it is: where it runs'),
  ],
)
def test_a_value_that_a_flag_does_not_take(word, told, monkeypatch):
  values = absl_flags.FlagValues()
  monkeypatch.setattr(flags.flags, 'FLAGS', values)
  own = {'flag_values': values}
  absl_flags.DEFINE_integer('rounds', 2, '', lower_bound=2, **own)
  absl_flags.DEFINE_integer('size', 1, '', lower_bound=1, **own)
  absl_flags.DEFINE_float('share', 1.0, '', **own)
  absl_flags.DEFINE_bool('quiet', False, '', **own)
  absl_flags.DEFINE_enum('runner', 'serial', ['serial', 'slurm'], '', **own)
  absl_flags.DEFINE_list('seeds', '0', '', **own)
  absl_flags.register_validator('seeds', lambda seeds: seeds[0].isdecimal(), 'must be such as 0,1,2', values)
  absl_flags.DEFINE(flags.PathParser(), 'folder', None, '', **own)
  absl_flags.DEFINE_string('place', None, 'where it runs', required=True, **own)
  with pytest.raises(ConfigError) as error:
    flags.parse(['toy', *(['--place=here', word] if word else [])])
  assert str(error.value).startswith(told) and '\n' not in str(error.value)


def test_a_launcher_without_such_a_flag_says_which_it_has(parse):
  with pytest.raises(ConfigError, match='--workdir: no such flag; this command has --config$'):
    parse('--workdir=')


@pytest.mark.parametrize(
  ('argument', 'told'),
  [
    ('', ['--config=FILE', 'missing', 'there are: cnn_digits, ']),
    ('--config=experiments/cnn_digit/config.py', ['no such file', 'nearest: cnn_digits']),
    ('--config=cnn_digit:tiny', ['cnn_digit:tiny: no such file or experiment; nearest: cnn_digits']),
    ('--config=FOLDER/notes.txt', ['not a Python file']),
    ('--config=FOLDER/empty.py', ['get_config']),
    ('--config=FOLDER/unscaled.py:tiny', ['get_config() of the file takes no scale; leave out :tiny']),
  ],
)
def test_a_wrong_file_names_the_nearest(parse, tmp_path, argument, told):
  (tmp_path / 'notes.txt').write_text('')
  (tmp_path / 'empty.py').write_text('')
  (tmp_path / 'unscaled.py').write_text('def get_config(): ...')
  with pytest.raises(ConfigError) as error:
    parse(*[argument.replace('FOLDER', str(tmp_path))] if argument else [])
  assert all(word in str(error.value) for word in told) and '\n' not in str(error.value)


def test_fields_come_with_their_comments(path):
  notes = {name: (value, kind, note) for name, value, kind, note in flags.fields(flags.load_config(path))}
  assert list(notes) == ['steps', 'inner.lr', 'inner.name', 'hidden_sizes', 'bold', 'rule', 'limit', 'freeze']
  assert notes['inner.lr'] == (0.1, float, 'highest learning rate')
  assert notes['inner.name'][2] == 'of the rule, by its name'
  assert notes['hidden_sizes'] == ((8, 8), tuple[int, ...], 'µ: units of each layer')
  assert notes['bold'][2] == 'whether "#" is shown'
  assert notes['steps'][2] == 'updates of the parameters'


@pytest.mark.parametrize('word', flags.HELP)
def test_help_lists_fields_with_values_and_types(word, parse, capsys):
  with pytest.raises(SystemExit) as stop:
    parse('--config=FILE:tiny', word)
  shown = capsys.readouterr().out
  assert not stop.value.code
  assert '--config.steps=2' in shown and 'µ: units of each layer' in shown
  assert "--config.rule='adam'" in shown and "Literal['adam', 'sgd', 3]" in shown


@pytest.mark.parametrize(
  ('name', 'words'),
  [
    ('two configs', ['--config=FILE', '--config=other.py']),
    ('a flagfile that is not there', ['--flagfile=FOLDER/flags.txt']),
    ('a flag of another launcher', ['--config=FILE', '--workdir=FOLDER']),
    ('a fraction of a step', ['--config=FILE', '--config.steps=117.8']),
    ('a tuple with an entry of another type', ['--config=FILE', '--config.hidden_sizes=True,8']),
  ],
)
def test_rows_of_mistakes(name, words, parse, tmp_path, told, fault):
  line, code = told(lambda: parse(*(word.replace('FOLDER', str(tmp_path)) for word in words)))
  assert code == 2
  fault(name, line, code, 'nothing is started')


@pytest.mark.parametrize('optional', [False, True])
def test_paths_of_flags(optional, tmp_path, monkeypatch):
  values = absl_flags.FlagValues()
  absl_flags.DEFINE(flags.PathParser(optional), 'root', 'runs', '', values)
  monkeypatch.chdir(tmp_path)
  values(['toy', '--root=x'])
  assert values.root == tmp_path / 'x'
  with pytest.raises(absl_flags.Error, match='flag --root=gs://b/x: is an address'):
    values(['toy', '--root=gs://b/x'])
  if optional:
    values(['toy', '--root='])
    assert values.root == ''
  else:
    with pytest.raises(absl_flags.Error, match='flag --root=: is empty'):
      values(['toy', '--root='])
