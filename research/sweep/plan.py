"""The trials of a sweep: read from its file, checked against the config, and made command lines."""

import copy
import shlex
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from research.errors import ConfigError
from research.sweep.root import facts_of_sweep
from research.sweep.runners import Job
from research.sweep.trials import Trial, named
from research.train.config import Config, check_types, flatten, set_field
from research.train.modules import import_file

Parse = Callable[[list[str]], Config]  # the config of the words `--config=FILE --config.FIELD=VALUE ...`


class Plan(NamedTuple):
  """A sweep over a config, all of whose trials can be run."""

  file: str  # the config's, with its scale
  trials: Mapping[str, Trial]  # by name; with what the command line overrides for all of them
  fields: Mapping[str, Mapping[str, Any]]  # by name: the value of every field that some trial sets
  facts: Mapping[str, Any]  # what a root belongs to

  def words(self, name: str) -> list[str]:
    """The flags that make the config of a trial."""
    return _words(self.file, self.trials[name])

  def job(self, name: str, root: Path, flags: list[str]) -> Job:
    """A trial to be run, in a workdir of its own."""
    return Job(name, root / name, [*self.words(name), *flags])

  def command(self, name: str, root: Path) -> str:
    """What a shell takes to go on with a trial."""
    return shlex.join(['python', '-m', 'launch.train', *self.words(name), f'--workdir={root / name}'])


def make_plan(file: str, config: Config, sweep: Path, parse: Parse) -> Plan:
  """The plan of `config`, which is that of `file` or overridden for all trials, and the file `sweep`.

  `parse` reads a command line as each trial will.
  Raises ConfigError that names the trial and the field.
  """
  own, before = read_trials(sweep), flatten(parse([f'--config={file}']))
  shared = {field: value for field, value in flatten(config).items() if value != before[field]}
  trials = {name: {**shared, **trial} for name, trial in own.items()}
  configs = {name: _checked(file, trial, f'{sweep}, trial {name}', parse) for name, trial in trials.items()}
  swept = dict.fromkeys(field for trial in own.values() for field in trial)
  values = {name: {field: flatten(configs[name])[field] for field in swept} for name in trials}
  return Plan(file, trials, values, facts_of_sweep(config, own))


def read_trials(path: Path) -> dict[str, Trial]:
  """The trials of a sweep.py by name. Raises ConfigError where there is none."""
  if not path.is_file():
    raise ConfigError(f'--sweep={path}: no such file; write one with a function sweep(), or give another')
  module = import_file(path)
  if not hasattr(module, 'sweep'):
    raise ConfigError(f'--sweep={path}: the file has no function sweep(), which returns a list of trials')
  try:
    return named(module.sweep() or ())
  except ConfigError as error:
    raise ConfigError(f'--sweep={path}: {error}') from error


def _checked(file: str, trial: Trial, place: str, parse: Parse) -> Config:
  try:
    config = parse(_words(file, trial))
    _check_values(trial, config)
    config.validate()
  except ConfigError as error:
    raise ConfigError(f'{place}: {error}') from error
  return config


def _check_values(trial: Trial, config: Config) -> None:
  """A command line is more lenient than a type: there the text '3' is the number 3."""
  given = copy.deepcopy(config)
  for field, value in trial.items():
    set_field(given, field, value)
  check_types(given)


def _words(file: str, trial: Trial) -> list[str]:
  return [f'--config={file}', *(f'--config.{field}={value}' for field, value in trial.items())]
