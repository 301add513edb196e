"""The root folder of a sweep, locked while in use and bound to one config and its trials."""

import contextlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from research.errors import WorkdirError
from research.sweep.trials import Trial
from research.train.config import Config
from research.train.workdir import differences, facts_of, take, write_json

NAME = 'sweep.json'


@contextlib.contextmanager
def held(root: Path, facts: Mapping[str, Any]) -> Iterator[None]:
  """Locks the root of the sweep identified by `facts`.

  Raises WorkdirError if it is not writable, is in use or belongs to another sweep, without changing it.
  """
  with take(root, 'root', 'sweep'):
    _refuse_others(root, facts)
    yield


def facts_of_sweep(config: Config, trials: Mapping[str, Trial]) -> dict[str, Any]:
  """The config fields shared by the trials, and the trials, as read back from JSON."""
  return json.loads(json.dumps({**facts_of(config), **{f'trial {name}': trial for name, trial in trials.items()}}))


def claim(root: Path, facts: Mapping[str, Any]) -> None:
  """Binds the root to this sweep."""
  write_json(root / NAME, facts)


def _refuse_others(root: Path, facts: Mapping[str, Any]) -> None:
  if not (root / NAME).exists():
    if any(child.name not in ('lock', f'{NAME}.tmp') for child in root.iterdir()):
      raise WorkdirError(f'root {root}: has files but no {NAME}, so it is not a sweep; give another')
    return
  try:
    saved = {'class': 'Config', **json.loads((root / NAME).read_text())}  # older files have no class
  except ValueError as error:
    raise WorkdirError(f'root {root}: {NAME} is not JSON ({error}); give another') from error
  if names := [name for name in {**saved, **facts} if saved.get(name) != facts.get(name)]:
    more = f'; and {len(names) - 3} more' if len(names) > 3 else ''
    raise WorkdirError(
      f'root {root} belongs to another sweep ({differences(saved, facts, names[:3])}{more}); give another root'
    )
