"""The root of a sweep: a folder that one sweep at a time works in, of one config and the same trials for ever."""

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
  """Holds the root of the sweep that `facts` tell of.

  Raises WorkdirError: it cannot be written, is in use or belongs to another sweep; nothing in it has changed.
  """
  with take(root, 'root', 'sweep'):
    _refuse_others(root, facts)
    yield


def facts_of_sweep(config: Config, trials: Mapping[str, Trial]) -> dict[str, Any]:
  """The fields of the config that the trials share, and the trials, as JSON gives them back."""
  return json.loads(json.dumps({**facts_of(config), **{f'trial {name}': trial for name, trial in trials.items()}}))


def claim(root: Path, facts: Mapping[str, Any]) -> None:
  """Makes the root that of this sweep for ever."""
  write_json(root / NAME, facts)


def _refuse_others(root: Path, facts: Mapping[str, Any]) -> None:
  if not (root / NAME).exists():
    if any(child.name not in ('lock', f'{NAME}.tmp') for child in root.iterdir()):
      raise WorkdirError(f'root {root}: has files but no {NAME}, so it is not a sweep; give another')
    return
  try:
    saved = {'class': 'Config', **json.loads((root / NAME).read_text())}  # older ones do not name it
  except ValueError as error:
    raise WorkdirError(f'root {root}: {NAME} is not JSON ({error}); give another') from error
  if names := [name for name in {**saved, **facts} if saved.get(name) != facts.get(name)]:
    more = f'; and {len(names) - 3} more' if len(names) > 3 else ''
    raise WorkdirError(
      f'root {root} belongs to another sweep ({differences(saved, facts, names[:3])}{more}); give another root'
    )
