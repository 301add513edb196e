"""The plan of a sweep: its trials, read from a file, checked against the config, as command lines."""

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

Parse = Callable[[list[str]], Config]  # the config of `--config=FILE --config.FIELD=VALUE ...`


class Plan(NamedTuple):
  """A sweep over a config, with valid trials."""

  file: str  # of the config, with its scale
  trials: Mapping[str, Trial]  # by name, including overrides from the command line
  fields: Mapping[str, Mapping[str, Any]]  # by name: the values of all fields that any trial sets
  facts: Mapping[str, Any]  # identifies the sweep of a root

  def words(self, name: str) -> list[str]:
    """The flags for a trial's config."""
    return _words(self.file, self.trials[name])

  def job(self, name: str, root: Path, flags: list[str]) -> Job:
    """The job of a trial, in its own workdir."""
    return Job(name, root / name, [*self.words(name), *flags])

  def command(self, name: str, root: Path) -> str:
    """The shell command that resumes a trial."""
    return shlex.join(['python', '-m', 'launch.train', *self.words(name), f'--workdir={root / name}'])


def make_plan(file: str, config: Config, sweep: Path, parse: Parse) -> Plan:
  """The plan of the sweep file `sweep` over `config`, the config of `file` with overrides for all trials.

  `parse` parses command lines as the trials will. Raises ConfigError that names the trial and the field.
  """
  own, before = read_trials(sweep), flatten(parse([f'--config={file}']))
  shared = {field: value for field, value in flatten(config).items() if value != before[field]}
  trials = {name: {**shared, **trial} for name, trial in own.items()}
  configs = {name: _checked(file, trial, f'{sweep}, trial {name}', parse) for name, trial in trials.items()}
  swept = dict.fromkeys(field for trial in own.values() for field in trial)
  values = {name: {field: flatten(configs[name])[field] for field in swept} for name in trials}
  return Plan(file, trials, values, facts_of_sweep(config, own))


def read_trials(path: Path) -> dict[str, Trial]:
  """The trials of a sweep.py by name. Raises ConfigError if there are none."""
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
  """Checks types, as a command line would accept the string '3' for the number 3."""
  given = copy.deepcopy(config)
  for field, value in trial.items():
    set_field(given, field, value)
  check_types(given)


def _words(file: str, trial: Trial) -> list[str]:
  return [f'--config={file}', *(f'--config.{field}={value}' for field, value in trial.items())]
