"""The folders of experiments."""

from pathlib import Path

from launch.flags import ROOT
from research.errors import ConfigError, unknown
from research.paths import local
from research.report import results


def folder_of(name: str) -> Path:
  """The folder of an experiment, given its name or its path. Raises ConfigError with the nearest names."""
  folders = [ROOT / 'experiments' / name, local(name, '--experiment')] if name else []
  folder = next((folder for folder in folders if (folder / 'config.py').is_file()), None)
  if folder is None:
    known = sorted(path.parent.name for path in ROOT.glob('experiments/*/config.py'))
    fault = f'={name}: {unknown(name, known)}' if name else f'=NAME is missing; there are: {", ".join(known)}'
    raise ConfigError(f'--experiment{fault}')
  return folder


def recorded() -> list[Path]:
  """Those of the experiments that have runs on record."""
  return [path.parent for path in sorted(ROOT.glob('experiments/*/results.jsonl')) if results.read(path)]
