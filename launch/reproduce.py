"""Runs experiments again, and says how far they agree with what their folders have on record.

python -m launch.reproduce --experiment=cnn_digits --seeds=0,1,2
"""

import contextlib
import json
from pathlib import Path

from absl import flags, logging

from launch import app, tables
from launch.flags import PathParser
from launch.progress import Progress
from research.errors import ConfigError, RunError, WorkdirError, unknown
from research.paths import experiments, local
from research.report import results
from research.report.agreement import RECORDED, judge, judge_beginnings, verdict
from research.report.curves import draw_curves
from research.report.tables import summary
from research.train.config import Config
from research.train.environment import changes
from research.train.loop import train
from research.train.modules import import_file
from research.train.rerun import finished, folds_of, workdir_for
from research.train.run import HASHED_STEPS
from research.train.signals import Stop

EXPERIMENT = flags.DEFINE_string('experiment', '', 'name of a folder in experiments/, or its path')
ALL = flags.DEFINE_bool('all', False, 'every experiment that has a results.jsonl')
SEEDS = flags.DEFINE_list('seeds', '0,1,2', 'seeds to run; a cross-validation runs every fold of each')
RECORD = flags.DEFINE_bool('record', False, 'put the runs on record, in place of older ones of the same seed and fold')
QUICK = flags.DEFINE_bool('quick', False, f'only the first {HASHED_STEPS[-1]} steps, of the first fold')
RUNS = flags.DEFINE(PathParser(), 'root', 'runs/reproduce', 'folder of the workdirs')
flags.register_validator('seeds', lambda seeds: seeds and all(map(str.isdecimal, seeds)), 'must be such as 0,1,2')
flags.mark_bool_flags_as_mutual_exclusive(['quick', 'record'])


def main() -> None:
  folders = results.recorded() if ALL.value else [folder_of(EXPERIMENT.value)]
  if not folders:
    raise ConfigError('--all: no experiment has runs on record; put some there with --experiment=NAME --record')
  if faults := [fault for folder in folders if (fault := reproduce(folder))]:
    raise RunError('; '.join(faults))


def folder_of(name: str) -> Path:
  """The folder of an experiment, given its name or its path. Raises ConfigError with the nearest names."""
  known = experiments()
  if not name:
    raise ConfigError(f'--experiment=NAME is missing; there are: {", ".join(known)}')
  if name in known:
    return known[name]
  if not ((folder := local(name, '--experiment')) / 'config.py').is_file():
    raise ConfigError(f'--experiment={name}: {unknown(name, known)}')
  return folder


def reproduce(folder: Path) -> str:
  """Runs an experiment, prints what was found, and returns what is wrong, '' for nothing."""
  module, path = import_file(folder / 'config.py'), folder / 'results.jsonl'
  if missing := [name for name in ('__doc__', 'get_config', 'TARGET') if not getattr(module, name, None)]:
    raise ConfigError(f'{folder / "config.py"}: has no {missing[0]}; see the configs in experiments/')
  records, seeds = results.read(path), [int(seed) for seed in SEEDS.value]
  if not records and not RECORD.value:
    raise ConfigError(f'{path} has no runs to compare with; put some on record with --record')
  if QUICK.value and (missing := set(seeds) - {record['seed'] for record in records}):
    raise ConfigError(f'--seeds: {path} has no seed {min(missing)}, whose beginning --quick could compare')
  configs = [config for seed in seeds for config in folds_of(module.get_config(), seed)[: 1 if QUICK.value else None]]
  workdirs = [run(config, RUNS.value / folder.name) for config in configs]
  runs = [results.from_workdir(workdir) for workdir in workdirs]
  if RECORD.value:
    for workdir in workdirs:
      check_of_one_code(workdir)
    results.add(path, runs)
    records, found = results.read(path), [RECORDED] * len(runs)
    tables.update([folder])
  else:
    found = judge_beginnings(runs, records) if QUICK.value else judge(runs, records, module.TARGET)
  print(f'{folder.name}\n{summary(runs, found, module.TARGET)}')
  fault = verdict(runs, found, records, module.TARGET)
  return fault and f'{folder.name}: {fault}'


def check_of_one_code(workdir: Path) -> None:
  """Raises WorkdirError if code or versions changed while the run was trained."""
  for step, what in changes(json.loads((workdir / 'environment.json').read_text())).items():
    raise WorkdirError(
      f'{workdir}: code or versions changed at step {step} ({what}), so its numbers cannot be put on record; '
      'delete it and give the same command again'
    )


def run(config: Config, root: Path) -> Path:
  """The workdir of a run of `config`, which may be there already; of its beginning alone if quick."""
  workdir = workdir_for(root, config)
  logging.info('%s: %s', workdir, 'has it already' if finished(workdir) else 'runs')
  if not finished(workdir):
    experiment = config.build()
    with (
      Stop() as stop,
      Progress(config.steps) as progress,
      contextlib.closing(train(experiment, config, workdir, stop)) as records,
    ):
      for record in records:
        progress.show(record)
        if QUICK.value and record.step > HASHED_STEPS[-1]:
          break
    draw_curves(workdir)
  return workdir


if __name__ == '__main__':
  app.run(main)
