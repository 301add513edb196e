"""How far a run agrees with those on record: to the bit, to rounding, or within what chance would do."""

import math
from collections.abc import Mapping, Sequence
from statistics import fmean, stdev
from typing import NamedTuple

from research.report.results import Record, run_of

TOLERANCE = 1e-5  # relative difference of metrics that rounding may make
CONFIDENCE = 0.99


class Target(NamedTuple):
  """What an experiment is to reach, and how far from it a run may end that still agrees.

  The sampling error of an accuracy over n examples is 2.58 * sqrt(p * (1 - p) / n).
  """

  metric: str  # of result.json
  at_least: float = -math.inf  # of the mean over the recorded seeds
  at_most: float = math.inf  # the same, where less is better
  margin: float = math.inf  # largest distance from the recorded mean, whatever their spread
  examples: int = 0  # of the test part, whose sampling error is allowed; 0: none is (no accuracy)

  def reached(self, mean: float) -> bool:
    """Whether a mean over the seeds is what it is to be."""
    return self.at_least <= mean <= self.at_most

  @property
  def goal(self) -> float:
    """The end of the range that is to be reached."""
    return self.at_least if self.at_most == math.inf else self.at_most

  def without_goal(self) -> 'Target':
    """What a variant is compared by: it need not reach anything, but must agree with its own record."""
    return self._replace(at_least=-math.inf, at_most=math.inf)


class Agreement(NamedTuple):
  """What was found out about a run."""

  level: str  # bitwise, numerical, statistical, or '' for none
  first_difference: str  # step of the first State hash that differs; '' where none does or nothing was compared
  differs: tuple[str, ...]  # what is not as it was in the recorded run: commit, versions, ...


RECORDED = Agreement('on record now', '', ())


def judge(runs: Sequence[Record], recorded: Sequence[Record], targets: Sequence[Target]) -> list[Agreement]:
  """How far each run agrees with the records.

  A seed agrees statistically if, for every target, its mean over the folds lies in the band of the recorded means.
  """
  inside = set.intersection(*(_seeds_inside(runs, recorded, target) for target in targets))
  found = [agreement(run, recorded) for run in runs]
  return [
    one._replace(level='statistical') if not one.level and run['seed'] in inside else one
    for run, one in zip(runs, found, strict=True)
  ]


def _seeds_inside(runs: Sequence[Record], recorded: Sequence[Record], target: Target) -> set[int]:
  if not (means := seed_means(recorded, target.metric)):
    return set()
  low, high = band(list(means.values()), target)
  return {seed for seed, value in seed_means(runs, target.metric).items() if low <= value <= high}


def judge_beginnings(runs: Sequence[Record], recorded: Sequence[Record]) -> list[Agreement]:
  """What is found out about runs that have not ended.

  `statistical` are those on other hardware or versions, whose rounding grows from step to step, if all that was logged
  lies where one more of the recorded seeds would have it.
  """
  found = [agreement(run, recorded) for run in runs]
  return [
    one._replace(level='statistical') if not one.level and _begins_elsewhere_alike(run, recorded) else one
    for run, one in zip(runs, found, strict=True)
  ]


def verdict(
  runs: Sequence[Record], found: Sequence[Agreement], recorded: Sequence[Record], targets: Sequence[Target]
) -> str:
  """What is wrong: runs that agree at no level, or means that miss their targets; '' if nothing is."""
  lost = sorted({run['seed'] for run, one in zip(runs, found, strict=True) if not one.level})
  if lost:
    return f'seed {", ".join(map(str, lost))} agrees with the record at no level'
  ended = [run for run in runs if 'metrics' in run]
  return ', '.join(missed for target in targets if (missed := _missed(ended, recorded, target)))


def _missed(runs: Sequence[Record], recorded: Sequence[Record], target: Target) -> str:
  """How the mean over the recorded seeds, with the new runs in place of theirs, misses the target; '' if it does not.

  A single seed may well miss it.
  """
  means = {**seed_means(recorded, target.metric), **seed_means(runs, target.metric)}
  if not means:
    return f'{target.metric} is not among the metrics'
  mean = fmean(means.values())
  short = 'below' if mean < target.at_least else 'above'
  return '' if target.reached(mean) else f'{target.metric} is {mean:.4f} on average, {short} {target.goal}'


def _begins_elsewhere_alike(run: Record, recorded: Sequence[Record]) -> bool:
  of_fold = [record for record in recorded if record.get('fold', 0) == run.get('fold', 0)]
  same = next((record for record in of_fold if run_of(record) == run_of(run)), run)
  if all(run[name] == same[name] for name in ('device', 'versions')) or len(of_fold) < 2:
    return False
  logged = [(step, name, value) for step, metrics in run['early'].items() for name, value in metrics.items()]
  bands = [
    band([record['early'].get(step, {}).get(name, math.nan) for record in of_fold], Target(name))
    for step, name, _ in logged
  ]
  return bool(logged) and all(low <= value <= high for (_, _, value), (low, high) in zip(logged, bands, strict=True))


def agreement(run: Record, recorded: Sequence[Record]) -> Agreement:
  """Compares a run, which need not have finished, with the record of the same run: bitwise or numerical."""
  same = next((record for record in recorded if run_of(record) == run_of(run)), None)
  if same is None:
    return Agreement('', '', differences(run, recorded[0]))
  step = first_difference(run['state_sha256'], same['state_sha256'])
  kind = 'metrics' if 'metrics' in run else 'early'
  level = 'numerical' if nearly_equal(run[kind], same.get(kind, {})) else ''
  return Agreement(level if step else 'bitwise', step, differences(run, same))


def first_difference(run: Mapping[str, str], recorded: Mapping[str, str]) -> str:
  """The first step, of those of `run`, whose hash is not the recorded one; '' where there is none."""
  steps = sorted(run, key=lambda step: math.inf if step == 'end' else int(step))
  return next((step for step in steps if run[step] != recorded.get(step)), '')


def nearly_equal(run: Mapping, recorded: Mapping) -> bool:
  """Whether every number, however deep, differs by rounding alone, and there are the same of them."""
  if not run or run.keys() != recorded.keys():
    return False
  pairs = [(run[name], recorded[name]) for name in run]
  return all(nearly_equal(a, b) if isinstance(a, Mapping) else math.isclose(a, b, rel_tol=TOLERANCE) for a, b in pairs)


def differences(run: Record, recorded: Record) -> tuple[str, ...]:
  """Commit, versions, data, config and hardware that are not the recorded ones, as `name: there -> here`."""
  data = {part: recorded['data'].get(part, value) for part, value in run['data'].items()}
  recorded = {**recorded, 'data': data}  # older records have the training part alone
  names = {'commit': 'commit', 'data': 'data', 'config_sha256': 'config', 'device': 'hardware'}
  found = [(label, recorded[name], run[name]) for name, label in names.items() if recorded[name] != run[name]]
  packages = {**recorded['versions'], **run['versions']}
  versions = [(name, recorded['versions'].get(name), run['versions'].get(name)) for name in packages]
  found += [version for version in versions if version[1] != version[2]]
  return tuple(f'{label}: {_short(there)} -> {_short(here)}' for label, there, here in found)


def band(recorded: Sequence[float], target: Target) -> tuple[float, float]:
  """Lower and upper end of the prediction band for one more run.

  mean ± t s sqrt(1 + 1/n), with the quantile t of Student's distribution with n - 1 degrees of freedom (the interval
  for one future observation of a normal sample); not narrower than the sampling error of the test part, and never
  wider than the target's margin, which is all there is to go by for a single record.
  """
  from scipy.special import stdtrit  # the quantile of Student's t; slow to import

  n, mean = len(recorded), fmean(recorded)
  half = target.margin
  if n > 1:
    half = stdtrit(n - 1, (1 + CONFIDENCE) / 2) * stdev(recorded) * math.sqrt(1 + 1 / n)
  half = min(max(half, sampling_error(mean, target.examples)), target.margin)
  return mean - half, mean + half


def sampling_error(accuracy: float, examples: int) -> float:
  """Half the width of the 99 % interval of an accuracy that was measured on so many examples."""
  return 2.58 * math.sqrt(max(accuracy * (1 - accuracy), 0) / examples) if examples else 0.0


def seed_means(records: Sequence[Record], metric: str) -> dict[int, float]:
  """The metric by seed; of a cross-validation its mean over the folds that have it, which test every example once."""
  by_seed: dict[int, list[float]] = {}
  for record in records:
    if metric in record['metrics']:
      by_seed.setdefault(record['seed'], []).append(record['metrics'][metric])
  return {seed: fmean(values) for seed, values in sorted(by_seed.items())}


def _short(value) -> str:
  text = ', '.join(value.values()) if isinstance(value, Mapping) else str(value or 'unknown')
  return text[:12] if len(text) == 64 else text
