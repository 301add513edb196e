"""Reruns experiments and compares them with their recorded results.

python -m launch.reproduce --experiment=cnn_digits --seeds=0,1,2
python -m launch.reproduce --experiment=NAME --variant=NAME --seeds=0 --record
"""

import contextlib
import json
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

from absl import flags, logging

from launch import app
from launch.flags import PathParser
from launch.progress import Progress, target_metric
from research.errors import ConfigError, RunError, WorkdirError, unknown
from research.paths import ROOT, experiments, local
from research.report import readmes, results
from research.report.agreement import RECORDED, judge, judge_beginnings, verdict
from research.report.curves import draw_curves
from research.report.tables import summary
from research.train.config import Config
from research.train.environment import changes, commit, is_kept, uncommitted
from research.train.loop import train
from research.train.modules import import_file
from research.train.rerun import finished, folds_of, workdir_for
from research.train.run import HASHED_STEPS
from research.train.signals import Stop

EXPERIMENT = flags.DEFINE_string('experiment', '', 'name or path of an experiment folder')
VARIANT = flags.DEFINE_string('variant', '', "one of the config's VARIANTS; empty: the default")
ALL = flags.DEFINE_bool('all', False, 'run the default of every recorded experiment')
SEEDS = flags.DEFINE_list('seeds', '0,1,2', 'seeds to run, with all folds of a cross-validation')
RECORD = flags.DEFINE_bool('record', False, 'record the runs, replacing older ones of the same variant, seed and fold')
QUICK = flags.DEFINE_bool('quick', False, f'only the first {HASHED_STEPS[-1]} steps of the first fold')
RUNS = flags.DEFINE(PathParser(), 'root', 'runs/reproduce', 'folder of the workdirs')
flags.register_validator(
  'seeds', lambda seeds: seeds and all(map(str.isdecimal, seeds)), 'must be integers such as 0,1,2'
)
flags.mark_bool_flags_as_mutual_exclusive(['quick', 'record'])
flags.register_multi_flags_validator(
  ['all', 'variant'], lambda values: not (values['all'] and values['variant']), '--all runs no variants'
)


def main() -> None:
  folders = results.recorded() if ALL.value else [folder_of(EXPERIMENT.value)]
  if not folders:
    raise ConfigError('--all: no experiment has recorded runs; record some with --experiment=NAME --record')
  if RECORD.value:
    check_committed(folders)
  if faults := [fault for folder in folders if (fault := reproduce(folder))]:
    raise RunError('; '.join(faults))


def folder_of(name: str) -> Path:
  """The folder of an experiment, by name or path. Raises ConfigError with the closest names."""
  known = experiments()
  if not name:
    raise ConfigError(f'--experiment=NAME is missing; there are: {", ".join(known)}')
  if name in known:
    return known[name]
  if not ((folder := local(name, '--experiment')) / 'config.py').is_file():
    raise ConfigError(f'--experiment={name}: {unknown(name, known)}')
  return folder


def reproduce(folder: Path) -> str:
  """Runs an experiment, prints its agreement, and returns what is wrong, or ''."""
  module, path, variant = module_of(folder), folder / 'results.jsonl', VARIANT.value
  targets = [target.without_goal() for target in module.TARGETS] if variant else module.TARGETS
  records = results.of_variant(results.read(path), variant)
  configs = configs_of(module, records, path)
  workdirs = [run(config, RUNS.value / folder.name / variant) for config in configs]
  runs = [results.from_workdir(workdir, variant) for workdir in workdirs]
  if RECORD.value:
    for workdir in workdirs:
      check_of_one_code(workdir)
    results.add(path, runs)
    records, found = results.of_variant(results.read(path), variant), [RECORDED] * len(runs)
    readmes.update([folder])
  else:
    found = judge_beginnings(runs, records) if QUICK.value else judge(runs, records, targets)
  name = f'{folder.name}, variant {variant}' if variant else folder.name
  print(f'{name}\n{summary(runs, found, targets)}')
  fault = verdict(runs, found, records, targets)
  return fault and f'{name}: {fault}'


def module_of(folder: Path) -> ModuleType:
  """The config file of an experiment. Raises ConfigError if it lacks what is needed to rerun it."""
  path, variant = folder / 'config.py', VARIANT.value
  module = import_file(path)
  if missing := [name for name in ('__doc__', 'get_config', 'TARGETS') if not getattr(module, name, None)]:
    raise ConfigError(f'{path}: has no {missing[0]}; see the configs in experiments/')
  variants = getattr(module, 'VARIANTS', ())
  if variant and variant not in variants:
    listed = unknown(variant, variants) if variants else 'the experiment has no VARIANTS'
    raise ConfigError(f'--variant={variant}: {listed} ({path})')
  return module


def configs_of(module: ModuleType, records: Sequence[results.Record], path: Path) -> list[Config]:
  """The configs to run. Raises ConfigError if they would be compared with records that `path` does not have."""
  seeds, variant = [int(seed) for seed in SEEDS.value], VARIANT.value
  whose = f' of variant {variant}' if variant else ''
  if not records and not RECORD.value:
    raise ConfigError(f'{path} has no runs{whose} to compare with; record some with --record')
  if QUICK.value and (missing := set(seeds) - {record['seed'] for record in records}):
    raise ConfigError(f'--seeds: {path} has no seed {min(missing)}{whose}, so --quick has nothing to compare with')
  config = module.get_config(variant) if variant else module.get_config()
  return [one for seed in seeds for one in folds_of(config, seed)[: 1 if QUICK.value else None]]


def check_committed(folders: Sequence[Path]) -> None:
  """Raises ConfigError unless a reader who checks out the recorded commit gets the code that is about to run.

  Only what recording itself writes may differ: the folders' results, READMEs and pictures, and the table in
  the project's README.
  """
  homes = {folder.resolve() for folder in folders}

  def is_output(path: Path) -> bool:
    own = path.name in ('results.jsonl', 'README.md') or path.suffix == '.png'
    return path == ROOT / 'README.md' or (path.parent in homes and own)

  if not commit():
    raise ConfigError(f'--record: {ROOT} is not a git checkout, so no commit could be recorded; work in a clone')
  if changed := [name for name in uncommitted() if not is_output(ROOT / name)]:
    more = f' and {len(changed) - 1} more' if len(changed) > 1 else ''
    raise ConfigError(
      f'--record: {changed[0]}{more} is not committed; commit or remove it, since a record names its commit'
    )
  if not is_kept():
    raise ConfigError(f'--record: commit {commit()} is on no branch and could be lost; git switch -c NAME keeps it')


def check_of_one_code(workdir: Path) -> None:
  """Raises WorkdirError if code or versions changed during training."""
  for step, what in changes(json.loads((workdir / 'environment.json').read_text())).items():
    raise WorkdirError(
      f'{workdir}: code or versions changed at step {step} ({what}), so its results cannot be recorded; '
      'delete it and run the same command again'
    )


def run(config: Config, root: Path) -> Path:
  """The workdir of a run of `config`, which may already exist; only of its first steps if quick."""
  workdir = workdir_for(root, config)
  logging.info('%s: %s', workdir, 'already finished' if finished(workdir) else 'running')
  if not finished(workdir):
    with (
      Stop() as stop,
      Progress(config.steps, target_metric(config)) as progress,
      contextlib.closing(train(config, workdir, stop)) as records,
    ):
      for record in records:
        progress.show(record)
        if QUICK.value and record.step > HASHED_STEPS[-1]:
          break
    draw_curves(workdir)
  return workdir


if __name__ == '__main__':
  app.run(main)
