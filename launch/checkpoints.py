"""Which checkpoint of a run a command line means."""

from pathlib import Path

from research.errors import ConfigError
from research.train.checkpoint import Checkpoints


def parse_checkpoint(text: str, workdir: Path) -> int:
  """The step, or -1 for 'best' and 'latest'. Raises ConfigError with those that there are."""
  if text not in ('best', 'latest') and not text.isdecimal():
    steps = ', '.join(map(str, Checkpoints(workdir / 'checkpoints').steps())) or 'none yet'
    raise ConfigError(f'--checkpoint={text}: must be best, latest or a step of {workdir}: {steps}')
  return int(text) if text.isdecimal() else -1
