"""Evaluates a checkpoint of a run, finished or not; needs its workdir, which is only read, and the data of one split.

python -m launch.evaluate --workdir=runs/digits --split=validation --checkpoint=best --predictions=outputs.npz
"""

import dataclasses
import numbers
import os

import jax
from absl import flags

from launch import app
from launch.flags import PathParser
from launch.progress import final_table
from research import random
from research.errors import ConfigError, failure, told
from research.evaluate.predictions import saved_to
from research.train.description import Description, load_description
from research.train.experiment import EvalFn, Experiment, checker
from research.train.restore import parse_checkpoint, restore_state
from research.train.workdir import saved_config

WORKDIR = flags.DEFINE(PathParser(), 'workdir', None, 'folder of the run', required=True)
SPLIT = flags.DEFINE_string('split', 'validation', 'validation, test or train')
CHECKPOINT = flags.DEFINE_string('checkpoint', 'latest', 'best, latest or a step')
PREDICTIONS = flags.DEFINE(
  PathParser(optional=True), 'predictions', '', 'file.npz for outputs, targets and index; empty: none'
)


def main() -> None:
  workdir, target = WORKDIR.value, PREDICTIONS.value
  if target and target.exists():
    raise ConfigError(f'--predictions={target}: exists already; give another file')
  if target and not os.access(target.parent, os.W_OK | os.X_OK):
    raise ConfigError(f'--predictions={target}: {target.parent} is not a writable folder; create it first')
  config, step = saved_config(workdir), parse_checkpoint(CHECKPOINT.value, workdir)
  described = load_description(workdir)
  experiment = config.build(described.fitted) if described.fitted else config.build()
  check = checker(experiment.task, described.batch(1))  # only this split is read: the others need not be there
  evaluator = check(SPLIT.value, evaluator_of(experiment, SPLIT.value, described))
  if target:
    if not hasattr(evaluator, 'examples'):
      raise ConfigError(f'--predictions={target}: {SPLIT.value} is measured without examples; leave it out')
    evaluator = dataclasses.replace(evaluator, reports=(*evaluator.reports, saved_to(target)))
  step, state = restore_state(experiment, config, workdir, step, best=CHECKPOINT.value == 'best')
  counted = f'{len(evaluator.examples):,} examples of ' if hasattr(evaluator, 'examples') else ''
  print(f'{workdir}, step {step}: {counted}{SPLIT.value}')
  key = random.stream(jax.random.key(config.seed), SPLIT.value, step)  # as in the run itself
  values = dict(evaluator(state, key))
  print(final_table({f'{SPLIT.value}/{name}': it for name, it in values.items() if isinstance(it, numbers.Real)}))
  for name, value in values.items():
    if isinstance(value, Exception):
      raise told(value, failure(f'{SPLIT.value}/{name}', value))


def evaluator_of(experiment: Experiment, split: str, described: Description) -> EvalFn:
  """The evaluator of a split; for the training split, the first evaluator with the training examples."""
  parts = {**experiment.evaluators, **experiment.final_evaluators}
  if not parts:
    raise ConfigError('the experiment of this workdir has no evaluators, so there is nothing to evaluate')
  first = next(iter(parts.values()))
  if hasattr(first, 'examples') and described.example:
    parts['train'] = dataclasses.replace(first, examples=experiment.train.examples)
  if split not in parts:
    raise ConfigError(f'--split={split}: must be one of {", ".join(parts)}')
  return parts[split]


if __name__ == '__main__':
  app.run(main)
