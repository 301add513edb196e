"""Samples from a trained model, given its workdir: a text, a transcript or a forecast.

python -m launch.sample --workdir=runs/shakespeare --prompt='ROMEO.' --length=1000 --temperature=0.8
"""

import os
from pathlib import Path
from typing import TYPE_CHECKING

import jax
from absl import flags

from launch import app
from launch.flags import PathParser
from research import random
from research.errors import ConfigError, check_range, naming
from research.train.description import load_description
from research.train.experiment import Request
from research.train.modules import experiment_name
from research.train.restore import parse_checkpoint, restore_variables
from research.train.workdir import saved_config

WORKDIR = flags.DEFINE(PathParser(), 'workdir', None, 'folder of the run', required=True)
PROMPT = flags.DEFINE_string('prompt', '', 'text to continue or translate')
INPUT = flags.DEFINE(PathParser(optional=True), 'input', '', 'recording to transcribe, or table to forecast from')
LENGTH = flags.DEFINE_integer('length', None, 'tokens to generate; 500 by default', lower_bound=1)
TEMPERATURE = flags.DEFINE_float('temperature', None, 'of text sampling; 0 is greedy, default 1')
SEED = flags.DEFINE_integer('seed', 0, 'of the sampling', lower_bound=0, upper_bound=2**32 - 1)
CHECKPOINT = flags.DEFINE_string('checkpoint', 'latest', 'best, latest or a step')
OUTPUT = flags.DEFINE(PathParser(optional=True), 'output', '', 'folder for figures; empty: `samples` in the workdir')

if TYPE_CHECKING:
  from matplotlib.figure import Figure


def main() -> None:
  workdir, request = WORKDIR.value, make_request()
  config, step = saved_config(workdir), parse_checkpoint(CHECKPOINT.value, workdir)
  sampler = config.sampler(load_description(workdir).fitted)
  step, variables = restore_variables(workdir, step, best=CHECKPOINT.value == 'best')
  key = random.stream(jax.random.key(SEED.value), 'sample', step)
  for name, value in sampler(variables, key, request):
    if isinstance(value, str):
      print(value)
    else:
      value.suptitle(f'{experiment_name(config)}\n{name.replace("_", " ")}, step {step:,}', fontsize=10)
      print(saved(value, (OUTPUT.value or workdir / 'samples') / f'{name}.png'))


def make_request() -> Request:
  """The request given by the flags.

  Raises ConfigError for an unreadable file, text that is not UTF-8, or an invalid temperature.
  """
  check_range('--temperature', TEMPERATURE.value or 0)
  try:
    PROMPT.value.encode()
  except UnicodeEncodeError as error:  # an undecodable byte arrives as half of a surrogate pair
    raise ConfigError(f'--prompt={PROMPT.value!a}: must be UTF-8; it is not at character {error.start + 1}') from error
  if INPUT.value and not (INPUT.value.is_file() and os.access(INPUT.value, os.R_OK)):
    raise ConfigError(f'--input={INPUT.value}: no such readable file; give the path of one')
  return Request(PROMPT.value, str(INPUT.value), LENGTH.value, TEMPERATURE.value)


def saved(figure: 'Figure', path: Path) -> Path:
  """Saves a figure and returns its path."""
  with naming(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
  return path


if __name__ == '__main__':
  app.run(main)
