"""What a sweep shows at its end: a table, a figure, the best trial as a command line, and what went wrong."""

import math
import signal
from collections.abc import Sequence
from pathlib import Path

from launch.trials import Plan
from research.errors import RunError
from research.evaluate import sweeps
from research.report.trials import Criterion, Outcome, trials_table


def show(outcomes: Sequence[Outcome], criterion: Criterion, plan: Plan, root: Path) -> None:
  """Writes the outcomes, the best first, to trials.md and trials.png, and prints them."""
  text = trials_table(outcomes, criterion)
  best, values = outcomes[0], [criterion.value(outcome) for outcome in outcomes]
  if not math.isnan(values[0]):
    text += f'\n\nBest by {criterion.label}: {best.name}. It is trained already; this command goes on in its workdir.'
    text += f'\n\n    {plan.command(best.name, root)}'
    fields = {field: [outcome.fields[field] for outcome in outcomes] for field in best.fields}
    if fields:
      sweeps.trials(fields, values, criterion.label).savefig(root / 'trials.png')
  temporary = root / 'trials.md.tmp'
  temporary.write_text(f'{text}\n', 'utf-8')
  temporary.replace(root / 'trials.md')
  print(text, '', *sorted(root.glob('trials.*')), sep='\n')  # last: the terminal may be closed


def check(outcomes: Sequence[Outcome], root: Path, signum: int) -> None:
  """Raises RunError where the sweep was stopped, with the signal's exit code, or where trials failed."""
  if signum:
    raise SweepStopped(signum, root)
  if failed := [f'{outcome.name} (exit {outcome.code})' for outcome in outcomes if outcome.code]:
    these = f'{len(failed)} of {len(outcomes)} trials failed: {", ".join(failed)}'
    raise RunError(f'{these}; {root / "logs"} says why, and the same command tries them again')


class SweepStopped(RunError):
  """A signal stopped the sweep."""

  def __init__(self, signum: int, root: Path):
    name = signal.Signals(signum).name
    super().__init__(f'stopped by {name}: all is in {root}, and the same command goes on from there')
    self.exit_code = 128 + signum
