"""Selecting the best trial of a sweep on validation, and the sweep's table and figure."""

import json
import math
import signal
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from research.errors import ConfigError, RunError
from research.report.tables import grid
from research.sweep import figures
from research.sweep.plan import Plan
from research.train.modules import name_of

SPLIT = 'validation/'
CAPTION = "The best trial first; metrics are those of each trial's final State on the validation split."


class Outcome(NamedTuple):
  """The outcome of a trial."""

  name: str
  fields: Mapping[str, Any]  # values of the swept fields
  code: int | None  # exit code of its run; None if it was not run
  metrics: Mapping[str, float]  # validation only; empty if the run failed
  seconds: float


class Criterion(NamedTuple):
  """The criterion for selecting trials: a number computed from validation metrics."""

  label: str
  measure: Callable[[Mapping[str, float]], float]
  lowest: bool = False  # lower is better

  def value(self, outcome: Outcome) -> float:
    """The value of a trial; NaN if it has none, or if it is not finite."""
    value = self.measure(outcome.metrics) if outcome.metrics else math.nan
    return value if math.isfinite(value) else math.nan


def read_outcome(name: str, fields: Mapping[str, Any], code: int | None, workdir: Path) -> Outcome:
  """The outcome of a trial that ended with `code`, from its result.json if that is 0.

  The metrics are those of the final State: the best evaluation of a run would be the maximum of several noisy numbers,
  and favor runs that are evaluated more often. Test metrics are dropped here, so that nothing can select by them.
  """
  if code != 0:
    return Outcome(name, fields, code, {}, math.nan)
  result = json.loads((workdir / 'result.json').read_text())
  metrics = {metric: value for metric, value in result['metrics'].items() if metric.startswith(SPLIT)}
  return Outcome(name, fields, code, metrics, result['seconds'])


def by_score(score: Callable[[Mapping[str, float]], float] | None) -> Criterion:
  """The experiment's own score. Raises ConfigError if it has none."""
  if score is None:
    raise ConfigError(f'--metric: the experiment has no score; give --metric={SPLIT}NAME --direction=min or max')

  def measure(metrics: Mapping[str, float]) -> float:
    try:
      return score(metrics)
    except KeyError as error:
      raise ConfigError(
        f'--metric: the score of the experiment reads {error}, but the trials have {", ".join(metrics)}; '
        f'give --metric={SPLIT}NAME --direction=min or max, which reruns no trial'
      ) from error

  return Criterion('score', measure)


def by_metric(metric: str, direction: str) -> Criterion:
  """A validation metric to minimize ('min') or maximize ('max'). Raises ConfigError for other splits."""
  if not metric.startswith(SPLIT):
    raise ConfigError(f'--metric={metric}: only validation metrics may select a trial; give {SPLIT}NAME')
  if direction not in ('min', 'max'):
    raise ConfigError(f'--metric={metric}: give --direction=min or --direction=max too')

  def measure(metrics: Mapping[str, float]) -> float:
    if metric not in metrics:
      raise ConfigError(
        f'--metric={metric}: the trials have {", ".join(metrics)}; give one of these, which reruns no trial'
      )
    return metrics[metric]

  return Criterion(metric, measure, lowest=direction == 'min')


def ranked(outcomes: Sequence[Outcome], criterion: Criterion) -> list[Outcome]:
  """Outcomes sorted best first; ties in the order of the sweep, and those without a value last."""

  def key(outcome: Outcome) -> float:
    value = criterion.value(outcome)
    return math.inf if math.isnan(value) else value if criterion.lowest else -value

  return sorted(outcomes, key=key)


def trials_table(outcomes: Sequence[Outcome], criterion: Criterion) -> str:
  """A row per trial, in the given order: its fields, status and validation metrics."""
  names = dict.fromkeys(name for outcome in outcomes for name in outcome.metrics if name != criterion.label)
  fields = list(outcomes[0].fields)
  heads = [name.removeprefix(SPLIT).replace('_', ' ') for name in (criterion.label, *names)]
  rows = [('trial', *fields, 'state', *heads, 'time')]
  for outcome in outcomes:
    numbers = [criterion.value(outcome), *(outcome.metrics.get(name, math.nan) for name in names)]
    time = '' if math.isnan(outcome.seconds) else f'{outcome.seconds:.0f} s'
    values = [_text(outcome.fields[field]) for field in fields]
    rows.append((outcome.name, *values, _state(outcome), *map(_text, numbers), time))
  return f'{CAPTION}\n\n{grid(rows)}'


def write_report(outcomes: Sequence[Outcome], criterion: Criterion, plan: Plan, root: Path) -> str:
  """Writes the outcomes, best first, to trials.md and trials.png in `root`; returns the text."""
  text = trials_table(outcomes, criterion)
  best, values = outcomes[0], [criterion.value(outcome) for outcome in outcomes]
  if not math.isnan(values[0]):
    text += f'\n\nBest by {criterion.label}: {best.name}. It is trained; this command resumes it in its workdir.'
    text += f'\n\n    {plan.command(best.name, root)}'
    fields = {field: [outcome.fields[field] for outcome in outcomes] for field in best.fields}
    if fields:
      figure = figures.trials(fields, values, criterion.label)
      figure.suptitle(f'{name_of(Path(plan.file.partition(":")[0]))}\ntrials', fontsize=10)
      figure.savefig(root / 'trials.png')
  temporary = root / 'trials.md.tmp'
  temporary.write_text(f'{text}\n', 'utf-8')
  temporary.replace(root / 'trials.md')
  return text


def check(outcomes: Sequence[Outcome], root: Path, signum: int) -> None:
  """Raises RunError if the sweep was stopped, with the signal's exit code, or if trials failed."""
  if signum:
    raise SweepStopped(signum, root)
  if failed := [f'{outcome.name} (exit {outcome.code})' for outcome in outcomes if outcome.code]:
    these = f'{len(failed)} of {len(outcomes)} trials failed: {", ".join(failed)}'
    raise RunError(f'{these}; {root / "logs"} says why; run the same command to retry them')


class SweepStopped(RunError):
  """A signal stopped the sweep."""

  def __init__(self, signum: int, root: Path):
    name = signal.Signals(signum).name
    super().__init__(f'stopped by {name}: all results are in {root}; run the same command again to resume')
    self.exit_code = 128 + signum


def _state(outcome: Outcome) -> str:
  if outcome.code is None:
    return 'not run'
  what = 'stopped' if outcome.code > 128 else 'failed'
  return f'{what}, exit {outcome.code}' if outcome.code else 'done'


def _text(value: Any) -> str:
  if isinstance(value, float):
    return '' if math.isnan(value) else f'{value:.4g}'
  return str(value)
