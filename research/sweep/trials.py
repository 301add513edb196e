"""Sweeps: lists of trials, each a dict of dotted config overrides, and ways to combine them.

A `sweep.py` next to a config has a function `sweep()` that returns such a list, for example
`product(values('optimizer.lr', [1e-3, 1e-2]), values('dropout_rate', [0.1, 0.3]))`: four trials.
"""

import itertools
import json
import math
import re
import zlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from research.errors import ConfigError

Trial = Mapping[str, Any]  # {'optimizer.lr': 1e-3, 'hidden_sizes': (64, 64)}
LONGEST = 60  # characters of a trial's name, at most


def values(field: str, options: Iterable[Any]) -> list[Trial]:
  """A trial for each value of a field."""
  return [{field: option} for option in options]


def product(*sweeps: Iterable[Trial]) -> list[Trial]:
  """All combinations, the last sweep varying fastest. Raises ConfigError if two sweeps set the same field."""
  return [_merged(trials) for trials in itertools.product(*sweeps)]


def zipped(*sweeps: Sequence[Trial]) -> list[Trial]:
  """Merges the first trials of all sweeps, the second, and so on. Raises ConfigError for different lengths."""
  if len(lengths := {len(sweep) for sweep in sweeps}) > 1:
    raise ConfigError(f'zipped: sweeps of {", ".join(map(str, sorted(lengths)))} trials; all must have the same number')
  return [_merged(trials) for trials in zip(*sweeps, strict=True)]


def chain(*sweeps: Iterable[Trial]) -> list[Trial]:
  """The trials of one sweep after those of the other."""
  return list(itertools.chain(*sweeps))


def choice(field: str, options: Sequence[Any], count: int, seed: int = 0) -> list[Trial]:
  """Values drawn uniformly from `options`, with replacement."""
  return values(field, [options[index] for index in _generator(field, seed).integers(len(options), size=count)])


def uniform(field: str, low: float, high: float, count: int, seed: int = 0) -> list[Trial]:
  """Values drawn uniformly from [low, high)."""
  if not low < high:
    raise ConfigError(f'uniform of {field}: from {low} to {high}; must be low < high')
  return values(field, _generator(field, seed).uniform(low, high, count).tolist())


def log_uniform(field: str, low: float, high: float, count: int, seed: int = 0) -> list[Trial]:
  """Values drawn log-uniformly from [low, high)."""
  if not 0 < low < high:
    raise ConfigError(f'log_uniform of {field}: from {low} to {high}; must be 0 < low < high')
  return values(field, np.exp(_generator(field, seed).uniform(math.log(low), math.log(high), count)).tolist())


def named(trials: Iterable[Trial]) -> dict[str, Trial]:
  """Trials by a name that is a valid folder name: a number and the overrides; duplicates are merged.

  Raises ConfigError for an empty sweep or an invalid trial.
  """
  unique = {}
  for trial in trials:
    if not (isinstance(trial, Mapping) and all(isinstance(field, str) for field in trial)):
      raise ConfigError(f"sweep: {trial!r} is not a trial; a trial is a dict such as {{'optimizer.lr': 1e-3}}")
    plain = {field: _plain(value) for field, value in trial.items()}
    unique.setdefault(json.dumps(plain, sort_keys=True, default=repr), plain)
  if not unique:
    raise ConfigError('sweep: has no trials; sweep() returns a list of dicts such as [{"optimizer.lr": 1e-3}]')
  digits = len(str(len(unique) - 1))
  return {f'{number:0{digits}}{_slug(trial)}': trial for number, trial in enumerate(unique.values())}


def _generator(field: str, seed: int) -> np.random.Generator:
  """A separate generator per field: otherwise fields drawn with the same seed would be correlated."""
  return np.random.default_rng((seed, zlib.crc32(field.encode())))


def _merged(trials: Sequence[Trial]) -> Trial:
  merged = {}
  for trial in trials:
    if shared := merged.keys() & trial.keys():
      raise ConfigError(f'sweep: {min(shared)} is set by two of the combined sweeps; set it in one')
    merged |= trial
  return merged


def _plain(value: Any) -> Any:
  """Converts NumPy numbers and lists to Python numbers and tuples."""
  if isinstance(value, (list, tuple)):
    return tuple(map(_plain, value))
  return value.item() if isinstance(value, np.generic) else value


def _slug(trial: Trial) -> str:
  texts = [f'{value:.4g}' if isinstance(value, float) else str(value) for value in trial.values()]
  slug = ''.join(f'-{field.split(".")[-1]}={text}' for field, text in zip(trial, texts, strict=True))
  return re.sub(r'[^\w.,=+-]', '', slug, flags=re.ASCII)[:LONGEST]
