"""How closely a run agrees with the record: bitwise, up to rounding, or statistically."""

import math
from collections.abc import Mapping, Sequence
from statistics import fmean, stdev
from typing import NamedTuple

from research.report.results import Record, run_of

TOLERANCE = 1e-5  # relative difference of metrics due to rounding
CONFIDENCE = 0.99


class Target(NamedTuple):
  """The target of an experiment, and how far a run may deviate from the record.

  The sampling error of an accuracy over n examples is 2.58 * sqrt(p * (1 - p) / n).
  """

  metric: str  # of result.json
  at_least: float = -math.inf  # of the mean over recorded seeds
  at_most: float = math.inf  # the same, if lower is better
  margin: float = math.inf  # largest deviation from the recorded mean, whatever the spread
  examples: int = 0  # of the test split, to allow for sampling error; 0 for metrics other than accuracy

  def reached(self, mean: float) -> bool:
    """Whether a mean over seeds reaches the target."""
    return self.at_least <= mean <= self.at_most

  @property
  def goal(self) -> float:
    """The bound to reach."""
    return self.at_least if self.at_most == math.inf else self.at_most

  def without_goal(self) -> 'Target':
    """The target of a variant, which must agree with its own record but need not reach anything."""
    return self._replace(at_least=-math.inf, at_most=math.inf)


class Agreement(NamedTuple):
  """The agreement of a run with the record."""

  level: str  # bitwise, numerical, statistical or ''
  first_difference: str  # step of the first differing State hash; '' if none differs or none was compared
  differs: tuple[str, ...]  # differences from the recorded run: commit, versions, ...


RECORDED = Agreement('on record now', '', ())


def judge(runs: Sequence[Record], recorded: Sequence[Record], targets: Sequence[Target]) -> list[Agreement]:
  """How far each run agrees with the records.

  A seed agrees statistically if, for every target, its mean over folds lies in the band of the recorded means.
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
  """How far unfinished runs agree with the records.

  Runs on other hardware or versions, where rounding differences grow, agree statistically if everything logged lies in
  the prediction band of the recorded seeds.
  """
  found = [agreement(run, recorded) for run in runs]
  return [
    one._replace(level='statistical') if not one.level and _begins_elsewhere_alike(run, recorded) else one
    for run, one in zip(runs, found, strict=True)
  ]


def verdict(
  runs: Sequence[Record], found: Sequence[Agreement], recorded: Sequence[Record], targets: Sequence[Target]
) -> str:
  """What is wrong: runs that do not agree, or means that miss their targets; '' if nothing is."""
  lost = sorted({run['seed'] for run, one in zip(runs, found, strict=True) if not one.level})
  if lost:
    return f'seed {", ".join(map(str, lost))} agrees with the record at no level'
  ended = [run for run in runs if 'metrics' in run]
  return ', '.join(missed for target in targets if (missed := _missed(ended, recorded, target)))


def _missed(runs: Sequence[Record], recorded: Sequence[Record], target: Target) -> str:
  """How the mean over the recorded seeds, updated with the new runs, misses the target; '' if it does not.

  A single seed may miss it.
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
  """Compares a run, finished or not, with its own record: bitwise or numerical."""
  same = next((record for record in recorded if run_of(record) == run_of(run)), None)
  if same is None:
    return Agreement('', '', differences(run, recorded[0]))
  step = first_difference(run['state_sha256'], same['state_sha256'])
  kind = 'metrics' if 'metrics' in run else 'early'
  level = 'numerical' if nearly_equal(run[kind], same.get(kind, {})) else ''
  return Agreement(level if step else 'bitwise', step, differences(run, same))


def first_difference(run: Mapping[str, str], recorded: Mapping[str, str]) -> str:
  """The first step of `run` whose hash differs from the recorded one; '' if there is none."""
  steps = sorted(run, key=lambda step: math.inf if step == 'end' else int(step))
  return next((step for step in steps if run[step] != recorded.get(step)), '')


def nearly_equal(run: Mapping, recorded: Mapping) -> bool:
  """Whether all nested numbers are the same up to rounding."""
  if not run or run.keys() != recorded.keys():
    return False
  pairs = [(run[name], recorded[name]) for name in run]
  return all(nearly_equal(a, b) if isinstance(a, Mapping) else math.isclose(a, b, rel_tol=TOLERANCE) for a, b in pairs)


def differences(run: Record, recorded: Record) -> tuple[str, ...]:
  """Differences in commit, versions, data, config and hardware, as `name: there -> here`."""
  data = {part: recorded['data'].get(part, value) for part, value in run['data'].items()}
  recorded = {**recorded, 'data': data}  # older records have only the training split
  names = {'commit': 'commit', 'data': 'data', 'config_sha256': 'config', 'device': 'hardware'}
  found = [(label, recorded[name], run[name]) for name, label in names.items() if recorded[name] != run[name]]
  packages = {**recorded['versions'], **run['versions']}
  versions = [(name, recorded['versions'].get(name), run['versions'].get(name)) for name in packages]
  found += [version for version in versions if version[1] != version[2]]
  return tuple(f'{label}: {_short(there)} -> {_short(here)}' for label, there, here in found)


def band(recorded: Sequence[float], target: Target) -> tuple[float, float]:
  """Lower and upper end of the prediction band for another run.

  mean ± t s sqrt(1 + 1/n), with the quantile t of Student's distribution with n - 1 degrees of freedom (the interval
  for one future observation of a normal sample); not narrower than the sampling error of the test split, nor
  wider than the target's margin, which is all there is for a single record.
  """
  from scipy.special import stdtrit  # the quantile of Student's t; slow to import

  n, mean = len(recorded), fmean(recorded)
  half = target.margin
  if n > 1:
    half = stdtrit(n - 1, (1 + CONFIDENCE) / 2) * stdev(recorded) * math.sqrt(1 + 1 / n)
  half = min(max(half, sampling_error(mean, target.examples)), target.margin)
  return mean - half, mean + half


def sampling_error(accuracy: float, examples: int) -> float:
  """Half-width of the 99 % confidence interval of an accuracy measured on `examples` examples."""
  return 2.58 * math.sqrt(max(accuracy * (1 - accuracy), 0) / examples) if examples else 0.0


def seed_means(records: Sequence[Record], metric: str) -> dict[int, float]:
  """The metric by seed, averaged over folds if there are any."""
  by_seed: dict[int, list[float]] = {}
  for record in records:
    if metric in record['metrics']:
      by_seed.setdefault(record['seed'], []).append(record['metrics'][metric])
  return {seed: fmean(values) for seed, values in sorted(by_seed.items())}


def _short(value) -> str:
  text = ', '.join(value.values()) if isinstance(value, Mapping) else str(value or 'unknown')
  return text[:12] if len(text) == 64 else text
