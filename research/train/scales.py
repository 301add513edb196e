"""Smaller runs of an experiment: the recorded config with all numbers of steps scaled down."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from research.errors import ConfigError
from research.train.config import Config

FAST = 50  # factor by which steps are reduced
IN_STEPS = ('log_every', 'eval_every', 'checkpoint_every')
OPTIMIZER_IN_STEPS = ('warmup_steps', 'schedule_steps', 'decay_steps', 'milestones')


def scales(recorded: Config, **tiny: Any) -> dict[str, Config]:
  """The scales of an experiment, by name: '' is the recorded one, 'fast' a first look, 'tiny' is for tests.

  The latter two have the recorded optimizer, schedule, clipping and EMA, scaled to their steps. `fast` has a fiftieth
  of the steps; `tiny` takes its `steps` and sizes from the fields given here.
  """
  smaller = shrunk(recorded, tiny['steps'])
  return {
    '': recorded,
    'fast': shrunk(recorded, max(1, round(recorded.steps / FAST))),
    'tiny': dataclasses.replace(smaller, **tiny),
  }


def at_scale(scale: str, configs: Mapping[str, Config]) -> Config:
  """The config of a scale, which follows the colon in `--config=FILE:SCALE`; '' is the recorded experiment."""
  if scale not in configs:
    raise ConfigError(f'scale {scale!r} is unknown; there are: {", ".join(name for name in configs if name)}')
  return configs[scale]


def shrunk(config: Config, steps: int) -> Config:
  """The config with `steps` steps and all other numbers of steps in proportion: at least 1, but 0 stays off."""

  def scaled(value: int | tuple[int, ...]) -> int | tuple[int, ...]:
    if isinstance(value, tuple):
      return tuple(map(scaled, value))
    return max(1, round(value * steps / config.steps)) if value else 0

  optimizer = {name: scaled(getattr(config.optimizer, name)) for name in OPTIMIZER_IN_STEPS}
  loop = {name: scaled(getattr(config, name)) for name in IN_STEPS}
  return dataclasses.replace(config, steps=steps, optimizer=dataclasses.replace(config.optimizer, **optimizer), **loop)


def steps_of(epochs: float, examples: int, batch_size: int) -> int:
  """Steps for about `epochs` epochs of `examples` examples."""
  return max(1, round(epochs * examples / batch_size))
