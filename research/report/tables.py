"""Tables of results for the READMEs, generated from results.jsonl between two markers."""

import math
from collections.abc import Mapping, Sequence
from statistics import fmean, stdev
from typing import NamedTuple

from research.report.agreement import Agreement, Target, seed_means
from research.report.results import Record, of_variant, variant_of

BEGIN, END = '<!-- results -->', '<!-- /results -->'


class Entry(NamedTuple):
  """An experiment with its records."""

  name: str
  what: str  # one phrase
  targets: Sequence[Target]  # the first is shown in the root README
  records: Sequence[Record]


def experiment_table(records: Sequence[Record], targets: Sequence[Target]) -> str:
  """Test results of an experiment, how it was run, and its variants; for its own README."""
  default, variants = of_variant(records, ''), sorted({variant_of(record) for record in records})
  parts = [_metrics_table(default, targets), _how(default)] if default else []
  if variants != ['']:
    parts.append(_variants_table({name: of_variant(records, name) for name in variants}, targets))
  return '\n\n'.join(parts)


def _metrics_table(records: Sequence[Record], targets: Sequence[Target]) -> str:
  names = dict.fromkeys(name for record in records for name in record['metrics'] if name.startswith('test/'))
  goals = {target.metric: _number(target.goal) for target in targets}
  rows = [('test', 'mean ± sd', 'least', 'greatest', 'to reach')]
  for name in sorted(names, key=lambda name: [*goals, name].index(name)):
    values = list(seed_means(records, name).values())
    rows.append((_label(name), spread(values), _number(min(values)), _number(max(values)), goals.get(name, '')))
  return grid(rows)


def _variants_table(variants: Mapping[str, Sequence[Record]], targets: Sequence[Target]) -> str:
  rows = [('variant', *(_label(target.metric) for target in targets), 'runs', 'time per run', 'commit')]
  for name, records in variants.items():
    reached = [list(seed_means(records, target.metric).values()) for target in targets]
    spreads = [spread(values) if values else '' for values in reached]
    rows.append((name or 'default', *spreads, str(len(records)), _time(records), _listed(records, 'commit')))
  return grid(rows)


def overview_table(entries: Sequence[Entry]) -> str:
  """A row per experiment; for the root README."""
  rows = [('experiment', 'what', 'test', 'to reach', 'reached, mean ± sd', 'runs', 'time per run')]
  for name, what, (target, *_), records in entries:
    default = of_variant(records, '')
    reached = spread(list(seed_means(default, target.metric).values()))
    link = f'[{name}](experiments/{name}/README.md)'
    label, goal = _label(target.metric), _number(target.goal)
    rows.append((link, what, label, goal, reached, str(len(default)), _time(default)))
  return grid(rows)


def summary(runs: Sequence[Record], found: Sequence[Agreement], targets: Sequence[Target]) -> str:
  """A row per run, with its agreement and the differences from the record; for the terminal."""
  names = [target.metric for target in targets]
  rows = [('seed', 'fold', 'agrees', 'State differs from step', *map(_label, names))]
  for run, (level, step, _) in zip(runs, found, strict=True):
    unfinished = 'metrics' not in run
    reached = ['not run to the end' if unfinished else _number(run['metrics'].get(name, math.nan)) for name in names]
    rows.append((str(run['seed']), str(run.get('fold', '')), level or 'NO', step, *reached))
  changes = dict.fromkeys(change for one in found for change in one.differs)
  return '\n'.join([grid(rows), *(f'differs from the record: {change}' for change in changes)])


def fill(text: str, table: str, begin: str = BEGIN, end: str = END) -> str:
  """The text with the table between its markers; unchanged if it has none."""
  before, begin, rest = text.partition(begin)
  _, end, after = rest.partition(end)
  return f'{before}{begin}\n{table}\n{end}{after}' if end else text


def grid(rows: Sequence[Sequence[str]]) -> str:
  """A Markdown table with the first row as header, aligned for reading as text."""
  widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
  lines = [' | '.join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
  lines.insert(1, ' | '.join('-' * width for width in widths))
  return '\n'.join(f'| {line} |' for line in lines)


def spread(values: Sequence[float]) -> str:
  """Mean and, for several values, standard deviation (n - 1)."""
  return _number(fmean(values)) + (f' ± {_number(stdev(values))}' if len(values) > 1 else '')


def _how(records: Sequence[Record]) -> str:
  seeds = ', '.join(map(str, sorted({record['seed'] for record in records})))
  folds = len({record['fold'] for record in records if 'fold' in record})
  runs = f'{len(records)} runs' if len(records) > 1 else 'One run'
  which = f'seeds {seeds}' + (f'; {folds} folds, averaged for each seed' if folds else '')
  seconds = fmean(record['seconds'] for record in records)
  return f'{runs} ({which}), {seconds:.0f} s each on {_listed(records, "device")}, commit {_listed(records, "commit")}.'


def _time(records: Sequence[Record]) -> str:
  seconds = fmean(record['seconds'] for record in records)
  return f'{seconds:.0f} s' if seconds < 100 else f'{seconds / 60:.1f} min'


def _listed(records: Sequence[Mapping], name: str) -> str:
  return ' and '.join(sorted({record[name] or 'unknown' for record in records}))


def _label(metric: str) -> str:
  return metric.removeprefix('test/').replace('_', ' ')


def _number(value: float) -> str:
  """Four decimals below a hundred, else four digits."""
  return f'{value:.4f}' if abs(value) < 100 else f'{value:.4g}'
