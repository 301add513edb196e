"""Choosing workdirs for reruns: one with the same run, or a fresh one."""

import dataclasses
import itertools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from research.train.config import Config
from research.train.environment import changed, environment

SAME = ('commit', 'python', 'versions', 'device', 'cores')  # of environment.json


def folds_of(config: Config, seed: int) -> list[Config]:
  """The config with a seed: once, or for every fold of a cross-validation."""
  config = dataclasses.replace(config, seed=seed)
  if not hasattr(config, 'num_folds'):
    return [config]
  return [dataclasses.replace(config, fold=fold) for fold in range(config.num_folds)]


def workdir_for(root: Path, config: Config) -> Path:
  """The first of `root`/seed0, seed0-2, ... that is free or holds a run of `config` by this code on this machine."""
  name = f'seed{config.seed}' + (f'_fold{config.fold}' if hasattr(config, 'fold') else '')
  paths = itertools.chain([root / name], (root / f'{name}-{number}' for number in itertools.count(2)))
  here = environment(config)
  return next(path for path in paths if not path.exists() or _is_same(path, config, here))


def finished(workdir: Path) -> bool:
  """Whether the run in a workdir is finished."""
  return (workdir / 'result.json').exists()


def _is_same(workdir: Path, config: Config, here: Mapping[str, Any]) -> bool:
  try:
    saved = json.loads((workdir / 'config.json').read_text())['config']
    starts = json.loads((workdir / 'environment.json').read_text())
  except (FileNotFoundError, ValueError, KeyError, TypeError):
    return False
  fields = json.loads(json.dumps(dataclasses.asdict(config)))
  known = here['commit'] and not here['commit'].endswith('-dirty')
  same = all(all(start[name] == here[name] for name in SAME) and not changed(start, here) for start in starts)
  # Uncommitted code may have changed since, so a finished run proves nothing about it now.
  return saved == fields and same and (known or not finished(workdir))
