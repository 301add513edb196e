"""The results.jsonl of an experiment: one JSON object per run, for comparison with later runs."""

import contextlib
import fcntl
import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from research.errors import DataError
from research.paths import experiments

Record = Mapping[str, Any]
FIELDS = {'seed', 'metrics', 'seconds', 'device', 'versions', 'commit', 'data', 'config_sha256', 'state_sha256'}
OF_ONE_RUN = ('seed', 'fold')  # config fields that differ between runs of an experiment


def read(path: Path) -> list[dict[str, Any]]:
  """The records in a file; empty if there is no file. Raises DataError that names the invalid line."""
  try:
    lines = path.read_text().splitlines() if path.exists() else []
  except UnicodeDecodeError as error:
    raise DataError(f'{path}: is not text; restore the file from git') from error
  return [_parse(line, f'{path} line {number}') for number, line in enumerate(lines, 1)]


def recorded() -> list[Path]:
  """The folders of experiments with recorded runs of the default."""
  return [folder for folder in experiments().values() if of_variant(read(folder / 'results.jsonl'), '')]


def add(path: Path, records: Sequence[Record]) -> None:
  """Atomically adds records to a file, replacing older ones of the same runs."""
  with _locked(path.parent):
    merged = {run_of(record): record for record in [*read(path), *records]}
    temporary = path.with_name(path.name + '.tmp')
    temporary.write_text(''.join(json.dumps(merged[run], allow_nan=False) + '\n' for run in sorted(merged)))
    temporary.replace(path)


def run_of(record: Record) -> tuple[str, int, int]:
  """Identifies a run of an experiment: variant, seed and fold (0 without cross-validation)."""
  return variant_of(record), record['seed'], record.get('fold', 0)


def variant_of(record: Record) -> str:
  """The variant; '' is the default, also for records without the field."""
  return record.get('variant', '')


def of_variant(records: Sequence[Record], variant: str) -> list[Record]:
  """The records of one variant."""
  return [record for record in records if variant_of(record) == variant]


def from_workdir(workdir: Path, variant: str = '') -> dict[str, Any]:
  """The record of the run in a workdir, without `seconds` and `metrics` if unfinished.

  `state_sha256` is by step, the last one called 'end'. `early` has the training metrics logged up to
  the last other step, for comparison before the end. Raises DataError for a damaged line.
  """
  config = _load(workdir / 'config.json')['config']
  start = _load(workdir / 'environment.json')[-1]
  lines = list(_lines(workdir / 'metrics.jsonl'))
  hashes = {str(line['step']): line['state_sha256'] for line in lines if 'state_sha256' in line}
  last = max(map(int, hashes), default=0)
  record = {
    'variant': variant,
    **{name: config[name] for name in OF_ONE_RUN if name in config},
    'device': f'{start["device"]}, {start["cores"]} cores',
    'versions': {'python': start['python'], **start['versions']},
    'commit': start['commit'],
    'data': start['data'],
    'config_sha256': _sha256({name: config[name] for name in config if name not in OF_ONE_RUN}),
    'early': {str(line['step']): _training(line) for line in lines if line['step'] <= last and _training(line)},
    'state_sha256': hashes,
  }
  return record | _ending(workdir / 'result.json', hashes)


def _ending(path: Path, hashes: Mapping[str, str]) -> dict[str, Any]:
  if not path.exists():
    return {}
  result = _load(path)
  kept = {name: result[name] for name in ('metrics', 'steps', 'seconds')}
  return {**kept, 'state_sha256': {**hashes, 'end': result['state_sha256']}}


def _training(line: Mapping[str, Any]) -> dict[str, float]:
  return {name: value for name, value in line.items() if name.startswith('train/')}


def _parse(line: str, place: str) -> dict[str, Any]:
  try:
    record = json.loads(line)
  except json.JSONDecodeError as error:
    raise DataError(f'{place}: is not JSON ({error}); restore the file from git') from error
  if not isinstance(record, dict) or (missing := FIELDS - set(record)):
    lacks = f'lacks {", ".join(sorted(missing))}' if isinstance(record, dict) else 'is not an object'
    raise DataError(f'{place}: {lacks}; restore the file from git, or record the run again')
  return record


def _lines(path: Path) -> Iterator[dict[str, Any]]:
  for number, line in enumerate(path.read_bytes().splitlines(), 1):
    try:
      yield json.loads(line)
    except ValueError as error:
      raise DataError(f'{path} line {number}: is not JSON ({error}); delete the workdir to run it again') from error


def _load(path: Path) -> Any:
  return json.loads(path.read_text())


def _sha256(content: Any) -> str:
  return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
  """Locks the file, as runs of several seeds may be recorded at the same time."""
  descriptor = os.open(folder, os.O_RDONLY)
  try:
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    yield
  finally:
    os.close(descriptor)
