"""Time and memory of a training step of every family, in our library and others.

python -m benchmarks.steps --families=mlp,cnn --rounds=5
python -m benchmarks.steps --record

Each library is measured in its own process, on the same batch, from the same parameters, verified by its first losses.
The processes of a family take turns: in every round each runs steps for about a second, and times are compared within
the round. --record writes results/steps.json, and steps.png and the table in README.md from it; families that were not
measured keep their records.
"""

import contextlib
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from absl import flags

from benchmarks import limits, report
from benchmarks.families import FAMILIES, Family
from benchmarks.libraries import LIBRARIES
from benchmarks.record import define_record_flag, environment
from launch import app
from research.errors import ConfigError, RunError, unknown
from research.paths import ROOT

ADVICE = "is not installed; pip install -e '.[peers]'"
ENVIRONMENT = dict(os.environ)  # before the launcher adds settings for JAX

Result = dict[str, Any]
QUIET, TRIES = 0.1, 3  # processors that others may keep busy during a block, and tries per block
TOLERANCES = (1e-4, 1e-2)  # relative, of the losses before the first and before the second update


class Process:
  """A library running steps of a family, in a separate process."""

  def __init__(self, family: str, library: str, folder: Path):
    self._family, self._library, self._errors = family, library, folder / f'{library}.txt'
    fresh = {'TORCHINDUCTOR_CACHE_DIR': str(folder / library), 'JAX_ENABLE_COMPILATION_CACHE': 'false'}
    with self._errors.open('w') as errors:
      self._process = subprocess.Popen(
        [sys.executable, '-m', 'benchmarks.measure', family, library, str(folder / 'weights.npz')],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=errors,
        text=True,
        cwd=ROOT,
        env={**ENVIRONMENT, **fresh, **LIBRARIES[library].environment},
      )

  def __enter__(self) -> 'Process':
    return self

  def __exit__(self, *_) -> None:
    self._process.stdin.close()
    self._process.wait()
    self._process.stdout.close()

  def answer(self) -> dict[str, Any]:
    """Its next answer; raises RunError with its last error line if it has exited."""
    for line in self._process.stdout:
      if line.startswith('{'):
        return json.loads(line)
    lines = self._errors.read_text().strip().splitlines()
    raised = [line for line in lines if re.match(r'[\w.]*(Error|Exception|Unsupported)\b', line)]
    raise RunError([f'ended with {self._process.wait()}', *lines[-1:], *raised][-1])

  def failed(self, error: RunError) -> Result:
    """The result of a library that cannot be measured; raises RunError for ours, the reference."""
    if self._library == 'ours':
      raise RunError(f'{self._family}: {error}') from error
    return {'error': str(error)}

  def ask(self, seconds: float) -> dict[str, Any]:
    """The step time, over a block of that many seconds."""
    with contextlib.suppress(BrokenPipeError):  # it has exited
      print(seconds, file=self._process.stdin, flush=True)
    return self.answer()


def main() -> None:
  given = flags.FLAGS
  families = chosen('families', given.families, FAMILIES)
  libraries = chosen('libraries', ['ours', *given.libraries], LIBRARIES)
  if given.record:
    check_complete(libraries)
  results, rates = {}, {}
  for name in families:
    rates = {rate: max(value, rates.get(rate, 0)) for rate, value in _rates().items()}
    measured = in_turn(FAMILIES[name], libraries, given.rounds, given.seconds)
    work = limits.work(FAMILIES[name])
    results[name] = {**environment(), **rates, **work, 'rounds': given.rounds, 'libraries': measured}
    print(report.details({name: results[name]}), '', sep='\n', flush=True)
  results = {name: {**result, **rates} for name, result in results.items()}  # best so far
  print(report.overview(results), report.sizes(results), sep='\n\n')
  if given.record:
    print(*report.record(results), sep='\n')


def _rates() -> dict[str, float]:
  """The machine's peak rates, measured in a separate process."""
  return json.loads(subprocess.check_output([sys.executable, '-m', 'benchmarks.limits'], text=True, cwd=ROOT))


def chosen(flag: str, names: Sequence[str], known: Sequence[str]) -> list[str]:
  """`names` in their known order. Raises ConfigError for an unknown one."""
  for name in names:
    if name not in known:
      raise ConfigError(f'--{flag}={name}: {unknown(name, known)}')
  return [name for name in known if name in names]


def check_complete(libraries: Sequence[str]) -> None:
  """Raises ConfigError if a record would lack a library."""
  if len(libraries) < len(LIBRARIES):
    raise ConfigError('--record: needs every library; leave --libraries out')
  for library in LIBRARIES.values():
    if library.missing:
      raise ConfigError(f'--record: {library.package} {ADVICE}')


def in_turn(family: Family, libraries: Sequence[str], rounds: int, seconds: float) -> dict[str, Result]:
  """Results per library, or a one-line `error`; raises RunError if ours fails."""
  results = {name: {'error': f'{LIBRARIES[name].package} {ADVICE}'} for name in libraries if LIBRARIES[name].missing}
  with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder, contextlib.ExitStack() as stack:
    processes = {}
    for name in [name for name in libraries if name not in results]:
      processes[name] = stack.enter_context(Process(family.name, name, Path(folder)))
      results[name] = _begun(processes[name], results.get('ours'))
    for number in range(rounds):
      for name in processes if number % 2 else reversed(processes):
        if 'error' not in results[name]:
          results[name] = _continued(processes[name], results[name], seconds)
  return {name: results[name] for name in libraries}


def _begun(process: Process, ours: Result | None) -> Result:
  """A library's report of its start; an error if its losses are not ours."""
  try:
    result = process.answer()
    for loss, own, tolerance in zip(result['losses'], (ours or result)['losses'], TOLERANCES, strict=True):
      if not abs(loss - own) <= tolerance * abs(own):
        raise RunError(f'losses {result["losses"]} are not those of ours, {ours["losses"]}, on the same parameters')
  except RunError as error:
    return process.failed(error)
  return {**result, 'step_seconds': [], 'disturbed': 0}


def _continued(process: Process, result: Result, seconds: float) -> Result:
  """The result with another block of times, repeated a few times while other processes are busy."""
  try:
    for _ in range(TRIES):
      block = process.ask(seconds)
      if quiet := block['others'] < QUIET:
        break
  except RunError as error:
    return process.failed(error)
  times, disturbed = [*result['step_seconds'], block['step_seconds']], result['disturbed'] + (not quiet)
  return {**result, 'step_seconds': times, 'peak_bytes': block['peak_bytes'], 'disturbed': disturbed}


if __name__ == '__main__':
  flags.DEFINE_list('families', list(FAMILIES), 'families of models to measure')
  flags.DEFINE_list('libraries', list(LIBRARIES), 'libraries to measure, always including ours')
  flags.DEFINE_integer('rounds', 5, 'turns of each library', lower_bound=1)
  flags.DEFINE_float('seconds', 1.0, 'approximate duration of a turn', lower_bound=0.01)
  define_record_flag()
  app.run(main)
