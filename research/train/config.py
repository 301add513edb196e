"""What every experiment's config has; an experiment adds its own fields and `build`."""

import contextlib
import dataclasses
import difflib
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from research.errors import ConfigError, check_range
from research.tasks.precision import PRECISIONS
from research.train.experiment import Experiment, Sampler
from research.train.mesh import MeshShape
from research.train.optimizer import Optimizer, make_optimizer

# What a run may change when it goes on; anything else would make it another run.
RESUMABLE = (
  'steps',
  'log_every',
  'evaluate_every',
  'evaluate_batch_size',
  'checkpoint_every',
  'keep_latest',
  'keep_best',
  'mesh.data',
  'mesh.fsdp',
  'mesh.tensor',
  'mesh.backend',
)

# How much of a block is computed anew: all but its input, or what a policy of `jax.checkpoint_policies` does not save.
REMAT = ('everything', 'dots_saveable', 'dots_with_no_batch_dims_saveable', 'everything_saveable', 'nothing_saveable')


@dataclasses.dataclass
class Config:
  """Fields of the loop. All durations are in steps; 0 or '' is off."""

  seed: int = 0  # of the parameters, the order of the examples and all noise
  steps: int = 1_000  # updates of the parameters
  batch_size: int = 128  # examples of a step, over all devices
  optimizer: Optimizer = dataclasses.field(default_factory=Optimizer)
  ema: float = 0.0  # decay of the averaged parameters that are evaluated
  precision: str = 'float32'  # float32, bfloat16 or float16: of the computation; parameters stay float32
  accumulate: int = 1  # micro-batches that a step's batch is taken in, one after another
  remat: str = ''  # policy by which a model's blocks are computed anew in the backward pass: everything, dots_saveable
  log_every: int = 100  # mean of the training metrics
  evaluate_every: int = 1_000  # on the validation part
  evaluate_batch_size: int = 500  # examples at once; no number depends on it but by rounding
  checkpoint_every: int = 1_000  # the last step is saved too
  keep_latest: int = 2  # checkpoints
  keep_best: int = 1  # checkpoints of the best validation score
  mesh: MeshShape = dataclasses.field(default_factory=MeshShape)

  def build(self) -> Experiment:
    """Wires the experiment; the one place where its parts meet."""
    raise NotImplementedError

  def sampler(self, files: Mapping[str, str]) -> Sampler:
    """What `launch.sample` draws, of the run's workdir alone; `files` are the texts that `Experiment.files` kept there.

    Raises ConfigError where an experiment has nothing to sample.
    """
    name = type(self).__module__
    raise ConfigError(f'--workdir: a run of {name}, which has nothing to sample; launch.evaluate measures it')

  def validate(self) -> None:
    """Raises ConfigError for the first value that no run could use."""
    check_least(self, 1, 'steps', 'batch_size', 'accumulate', 'log_every', 'evaluate_batch_size', 'keep_latest')
    check_least(self, 0, 'seed', 'evaluate_every', 'checkpoint_every', 'keep_best')
    for name, end in (('seed', 2**32), ('steps', 2**31)):
      if getattr(self, name) >= end:  # what JAX would cut off
        raise ConfigError(f'config.{name}={getattr(self, name)}: must be less than {end}')
    if not 0 <= self.ema < 1:
      raise ConfigError(f'config.ema={self.ema}: must be at least 0 (off) and less than 1')
    check_known(self, 'precision', PRECISIONS)
    check_known(self, 'remat', ('', *REMAT))
    if self.batch_size % self.accumulate:
      raise ConfigError(f'config.accumulate={self.accumulate}: must divide config.batch_size={self.batch_size}')
    self.mesh.validate()
    make_optimizer(self.optimizer, self.steps)  # now, and not once the data have been fetched


def check_least(config: Config, least: int, *names: str) -> None:
  """Raises ConfigError for the first of these fields that is less."""
  for name in names:
    if getattr(config, name) < least:
      bound = f'must be at least {least}' if least else 'must not be negative (0 is off)'
      raise ConfigError(f'config.{name}={getattr(config, name)}: {bound}')


def check_below(config: Config, below: float, *names: str) -> None:
  """Raises ConfigError for the first of these fields that is not from 0 on and less than `below`."""
  for name in names:
    check_range(f'config.{name}', getattr(config, name), below)


def check_within(config: Config, name: str, least: int, most: int) -> None:
  """Raises ConfigError where the field is not from `least` to `most`."""
  if not least <= getattr(config, name) <= most:
    raise ConfigError(f'config.{name}={getattr(config, name)}: must be from {least} to {most}')


def check_known(config: Config, name: str, known: Collection[str]) -> None:
  """Raises ConfigError where the field is none of the words `known`."""
  value = getattr(config, name)
  if value not in known:
    nearest = difflib.get_close_matches(value, known, 3, 0.4) or filter(None, known)
    raise ConfigError(f'config.{name}={value!r}: is unknown; nearest: {", ".join(nearest)}')


@contextlib.contextmanager
def as_field() -> Iterator[None]:
  """Has a ConfigError raised within, which begins with a field's bare name, name it in full."""
  try:
    yield
  except ConfigError as error:
    raise ConfigError(f'config.{error}') from error


def steps_of(epochs: float, examples: int, batch_size: int) -> int:
  """Steps that see every one of `examples` about `epochs` times."""
  return max(1, round(epochs * examples / batch_size))


def at_scale(scale: str, configs: Mapping[str, Config]) -> Config:
  """The config of a scale, which follows the colon in `--config=FILE:SCALE`; '' is the recorded experiment."""
  if scale not in configs:
    raise ConfigError(f'scale {scale!r} is unknown; there are: {", ".join(name for name in configs if name)}')
  return configs[scale]


def from_fields(cls: type, fields: Mapping[str, Any]) -> Any:
  """A config of class `cls` from the nested dicts that `dataclasses.asdict` and JSON made of one."""
  types = {field.name: field.type for field in dataclasses.fields(cls)}
  unknown = sorted(set(fields) - set(types))
  if unknown:
    raise ConfigError(f'config.{unknown[0]}: {cls.__name__} has no such field')
  values = {}
  for name, value in fields.items():
    nested = dataclasses.is_dataclass(types[name])
    value = from_fields(types[name], value) if nested else value
    values[name] = _tuples(value)
  return cls(**values)


def flatten(config: Any, prefix: str = '') -> dict[str, Any]:
  """Values by dotted name."""
  flat = {}
  for field in dataclasses.fields(config):
    value = getattr(config, field.name)
    nested = dataclasses.is_dataclass(value)
    flat.update(flatten(value, f'{prefix}{field.name}.') if nested else {prefix + field.name: value})
  return flat


def _tuples(value: Any) -> Any:
  return tuple(map(_tuples, value)) if isinstance(value, list) else value
