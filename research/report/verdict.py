"""Whether an experiment still reaches what it claims, in one line."""

from collections.abc import Sequence
from statistics import fmean

from research.report.agreement import Agreement, Target, seed_means
from research.report.results import Record


def verdict(runs: Sequence[Record], found: Sequence[Agreement], recorded: Sequence[Record], target: Target) -> str:
  """What is wrong: runs that agree at no level, or a mean short of the target; '' for nothing.

  The mean is over the seeds on record, with the new runs in the place of theirs: a single seed may well lie below.
  """
  lost = sorted({run['seed'] for run, one in zip(runs, found, strict=True) if not one.level})
  if lost:
    return f'seed {", ".join(map(str, lost))} agrees with the record at no level'
  ended = [run for run in runs if 'metrics' in run]
  means = {**seed_means(recorded, target.metric), **seed_means(ended, target.metric)}
  mean = fmean(means.values())
  short = 'below' if mean < target.least else 'above'
  return '' if target.reached(mean) else f'{target.metric} is {mean:.4f} in the mean, {short} {target.goal}'
