"""The base config; an experiment adds its own fields and `build`."""

import contextlib
import copy
import dataclasses
import functools
import inspect
import json
import math
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import numpy as np

from research.errors import ConfigError, check_choice, unknown
from research.parallel.mesh import MeshShape
from research.tasks.descend import Compute
from research.tasks.network import Network
from research.tasks.precision import PRECISIONS
from research.train.experiment import Experiment, Sampler
from research.train.optimizer import Optimizer, make_optimizer
from research.types import Fitted

START = ('init_from', 'init_map')  # read at the start of a run only, until there is a checkpoint

# Fields read only by the loop, not by `build`.
LOOP = ('log_every', 'eval_every', 'patience', 'checkpoint_every', 'keep_latest', 'keep_best', 'loader_threads', *START)

# Fields that may change on resume; any other change would make it another run.
RESUMABLE = (
  'steps',
  'eval_batch_size',
  *LOOP,
  'mesh.data',
  'mesh.fsdp',
  'mesh.tensor',
  'mesh.backend',
)

# Rematerialization policies: everything but a block's input, or one of `jax.checkpoint_policies`.
REMAT = ('everything', 'dots_saveable', 'dots_with_no_batch_dims_saveable', 'everything_saveable', 'nothing_saveable')


@dataclasses.dataclass
class Config:
  """Fields of the loop. All durations are in steps; 0 or '' is off."""

  seed: int = 0  # of the parameters, the order of examples and all noise
  steps: int = 1_000  # parameter updates
  batch_size: int = 128  # examples per step, over all devices
  optimizer: Optimizer = dataclasses.field(default_factory=Optimizer)
  ema_decay: float = 0.0  # decay of the EMA of parameters and batch statistics for evaluation
  precision: str = 'float32'  # of the computation: float32, bfloat16 or float16; parameters stay float32
  accumulate: int = 1  # micro-batches per step (gradient accumulation)
  remat: str = ''  # rematerialization policy of a model's blocks: everything, dots_saveable, ...
  log_every: int = 100  # mean of the training metrics since the last log
  log_norms: bool = False  # log the L2 norms of gradients and updates, too
  eval_every: int = 1_000  # on the validation split
  eval_batch_size: int = 500  # examples per evaluation step; affects only rounding
  patience: int = 0  # stop early after so many evaluations without a better score
  checkpoint_every: int = 1_000  # the last step is saved, too
  keep_latest: int = 2  # number of latest checkpoints to keep
  keep_best: int = 1  # number of checkpoints with the best validation scores to keep
  loader_threads: int = 2  # that load batches of a dataset too large for the devices
  init_from: str = ''  # workdir of a run to start from: its parameters, batch statistics and EMA
  init_map: tuple[str, ...] = ()  # SOURCE=TARGET paths, such as encoder/*=backbone/*; empty: the same paths
  mesh: MeshShape = dataclasses.field(default_factory=MeshShape)

  def __init_subclass__(cls, **options):
    """Makes `build` validate first, and record the config in the experiment."""
    super().__init_subclass__(**options)
    if 'build' in vars(cls):
      cls.build = _of_this_config(cls.build)

  def build(self) -> Experiment:
    """Builds the experiment.

    A config that fits something on its training data overrides `build(fitted=None)`; if it is given `fitted`, it fits
    nothing again.
    """
    raise ConfigError(f'config: its class {type(self).__name__} has no method build')

  def network(self, fitted: Fitted) -> Network:
    """The network, built from this config and what was fitted on the training data; reads no data."""
    raise ConfigError(f'config: its class {type(self).__name__} has no method network')

  def sampler(self, fitted: Fitted) -> Sampler:
    """What `launch.sample` draws, from the run's workdir alone.

    Raises ConfigError where an experiment has nothing to sample.
    """
    name = type(self).__module__
    raise ConfigError(f'--workdir: a run of {name}, which has no sampler; use launch.evaluate')

  @property
  def compute(self) -> Compute:
    """How tasks of this config compute gradients."""
    return Compute(self.precision, self.accumulate, self.mesh.axis_name, self.log_norms)

  def validate(self) -> None:
    """Raises ConfigError for the first invalid value; converts NumPy numbers to Python numbers."""
    check_types(self)
    check_at_least(self, 1, 'batch_size', 'accumulate', 'log_every', 'eval_batch_size', 'keep_latest', 'loader_threads')
    check_at_least(self, 0, 'eval_every', 'patience', 'checkpoint_every', 'keep_best')
    if self.patience and not self.eval_every:
      raise ConfigError(f'config.patience={self.patience}: counts evaluations, but config.eval_every=0 is off')
    check_within(self, 'seed', 0, 2**32 - 1)  # JAX would truncate larger seeds
    check_within(self, 'steps', 1, 2**31 - 1)
    if not 0 <= self.ema_decay < 1:
      raise ConfigError(f'config.ema_decay={self.ema_decay}: must be at least 0 (off) and less than 1')
    check_known(self, 'precision', PRECISIONS)
    check_known(self, 'remat', ('', *REMAT))
    if self.batch_size % self.accumulate:
      raise ConfigError(f'config.accumulate={self.accumulate}: must divide config.batch_size={self.batch_size}')
    check_init_map(self.init_from, self.init_map)
    self.mesh.validate()
    with as_field():
      make_optimizer(self.optimizer, self.steps)  # fail now, not after downloading the data


def check_init_map(init_from: str, init_map: tuple[str, ...]) -> None:
  """Raises ConfigError for an entry that is not SOURCE=TARGET with equally many asterisks on both sides."""
  for entry in init_map:
    source, _, target = entry.partition('=')
    if not (source and target) or '=' in target or source.count('*') != target.count('*'):
      raise ConfigError(
        f'config.init_map={init_map}: {entry!r} must be SOURCE=TARGET, with as many * on both sides, '
        'such as encoder/*=backbone/*'
      )
  if init_map and not init_from:
    raise ConfigError(f'config.init_map={init_map}: needs the workdir of another run in config.init_from')


def check_built(experiment: Experiment, config: Config) -> None:
  """Raises ConfigError unless the experiment was built from this config as it is now.

  Otherwise config.json would not describe the run. For an experiment wired by hand only the batch size is known.
  """
  if (built := experiment.config) is not None:
    if type(built) is not type(config):
      raise ConfigError(f'config: is a {_name(type(config))}, but the experiment was built from a {_name(type(built))}')
    old, new = flatten(built), flatten(config)
    for name in new:
      if name not in LOOP and old[name] != new[name]:
        raise ConfigError(
          f'config.{name}={new[name]!r}: was {old[name]!r} when the experiment was built; call config.build() again'
        )
  if config.patience and experiment.score is None:
    raise ConfigError(f'config.patience={config.patience}: the experiment has no score that could get better')
  if (size := experiment.train.batch_size) != config.batch_size:
    raise ConfigError(f'config.batch_size={config.batch_size}: but the training examples come in batches of {size}')


def _of_this_config(build: Callable[..., Experiment]) -> Callable[..., Experiment]:
  @functools.wraps(build)
  def build_and_note(config: Config, *args, **kwargs) -> Experiment:
    config.validate()
    return dataclasses.replace(build(config, *args, **kwargs), config=copy.deepcopy(config))

  return build_and_note


def _name(cls: type) -> str:
  return f'{cls.__module__}.{cls.__qualname__}'


def check_at_least(config: Config, at_least: int, *names: str) -> None:
  """Raises ConfigError for the first of these fields that is smaller."""
  for name in names:
    if getattr(config, name) < at_least:
      bound = f'must be at least {at_least}' if at_least else 'must not be negative (0 is off)'
      raise ConfigError(f'config.{name}={getattr(config, name)}: {bound}')


def check_within(config: Config, name: str, at_least: int, at_most: int) -> None:
  """Raises ConfigError unless the field is from `at_least` to `at_most`."""
  if not at_least <= getattr(config, name) <= at_most:
    raise ConfigError(f'config.{name}={getattr(config, name)}: must be from {at_least} to {at_most}')


def check_known(config: Config, name: str, known: Collection[str]) -> None:
  """Raises ConfigError unless the field is one of `known`."""
  check_choice(f'config.{name}', getattr(config, name), known)


@contextlib.contextmanager
def as_field(**fields: str) -> Iterator[None]:
  """Makes a ConfigError raised within, which starts with an argument's name, name the config's field.

  `fields` maps arguments to fields where the names differ: `beam='beam_size'` turns "beam=0: ..." into
  "config.beam_size=0: ...".
  """
  try:
    yield
  except ConfigError as error:
    if str(error).startswith('config.'):
      raise
    name, rest = re.fullmatch(r'(\w*)(.*)', str(error), re.DOTALL).groups()
    raise ConfigError(f'config.{fields.get(name, name)}{rest}') from error


def from_fields(cls: type, fields: Mapping[str, Any]) -> Any:
  """A config of class `cls` from nested dicts, as from `dataclasses.asdict` and JSON."""
  config = _from_fields(cls, fields)
  check_types(config)
  return config


def check_comes_back(config: Any) -> None:
  """Raises ConfigError for the first field that would change when read back from config.json."""
  there, back = flatten(config), flatten(from_fields(type(config), dataclasses.asdict(config)))
  for name, value in there.items():
    if back[name] != value:
      raise ConfigError(
        f'config.{name}={value!r}: would be {back[name]!r} when read from config.json; '
        f'__post_init__ of {type(config).__name__} must not change it again'
      )


def flatten(config: Any, prefix: str = '') -> dict[str, Any]:
  """Values by dotted name."""
  flat = {}
  for field in dataclasses.fields(config):
    value = getattr(config, field.name)
    nested = dataclasses.is_dataclass(value)
    flat.update(flatten(value, f'{prefix}{field.name}.') if nested else {prefix + field.name: value})
  return flat


def set_field(config: Any, name: str, value: Any) -> None:
  """Sets a field by its dotted name, also of a frozen dataclass."""
  *parents, last = name.split('.')
  object.__setattr__(functools.reduce(getattr, parents, config), last, value)


def check_types(config: Any, prefix: str = 'config.') -> None:
  """Raises ConfigError for the first field of the wrong type, or that does not survive JSON.

  A float may be an int, but not NaN or infinity. NumPy numbers become Python numbers.
  """
  kinds = get_type_hints(type(config))
  for field in dataclasses.fields(config):
    name, kind, value = prefix + field.name, kinds[field.name], _plain(getattr(config, field.name))
    if dataclasses.is_dataclass(value):
      if type(value) is not kind:  # config.json has no classes, so the annotation must
        raise ConfigError(f'{name}: must be {_text(kind)}, not {_text(type(value))}')
      check_types(value, f'{name}.')
    elif not fits(value, kind):
      raise ConfigError(f'{name}={value!r}: {_misfit(value, kind)}')
    elif not _survives_json(value):
      raise ConfigError(
        f'{name}={value!r}: must consist of numbers, strings, bools and tuples, which config.json can store'
      )
    else:
      object.__setattr__(config, field.name, value)


def fits(value: Any, kind: Any) -> bool:
  """Whether a value is of a type such as `int`, `tuple[float, ...]`, `Literal['a', 'b']` or `str | None`."""
  origin, parts = get_origin(kind), get_args(kind)
  if origin is Literal:
    return any(value == part and type(value) is type(part) for part in parts)
  if origin in (Union, UnionType):
    return any(fits(value, part) for part in parts)
  if origin is tuple:
    parts = parts[:1] * len(value) if parts[1:] == (...,) and isinstance(value, tuple) else parts
    return isinstance(value, tuple) and len(value) == len(parts) and all(map(fits, value, parts))
  if kind is float:
    return type(value) in (int, float) and math.isfinite(value)
  if kind is int:
    return type(value) is int  # a bool is an int to Python
  return kind is Any or isinstance(value, origin or kind)


def _misfit(value: Any, kind: Any) -> str:
  """The message for a value of the wrong type."""
  if get_origin(kind) is Literal:
    return unknown(value, map(str, get_args(kind)))
  entries = value if isinstance(value, tuple) else (value,)
  if any(isinstance(entry, float) and not math.isfinite(entry) for entry in entries):
    return 'must be finite'
  return f'must be {_text(kind)}'


def _text(kind: Any) -> str:
  """A type as written in code."""
  return inspect.formatannotation(kind, getattr(kind, '__module__', None))


def _survives_json(value: Any) -> bool:
  try:
    return _tuples(json.loads(json.dumps(value))) == value
  except (TypeError, ValueError):
    return False


def _from_fields(cls: type, fields: Mapping[str, Any]) -> Any:
  kinds = get_type_hints(cls)
  known = {field.name: field for field in dataclasses.fields(cls)}
  if missing := sorted(fields.keys() - known.keys()):
    raise ConfigError(f'config.{missing[0]}: {cls.__name__} has no such field')
  values = {}
  for name, value in fields.items():
    if not known[name].init:  # set by `__post_init__`
      continue
    nested = dataclasses.is_dataclass(kinds[name]) and isinstance(value, Mapping)
    values[name] = _from_fields(kinds[name], value) if nested else _tuples(value)
  return cls(**values)


def _tuples(value: Any) -> Any:
  return tuple(map(_tuples, value)) if isinstance(value, list) else value


def _plain(value: Any) -> Any:
  """Converts NumPy numbers to Python numbers."""
  if isinstance(value, tuple):
    return tuple(map(_plain, value))
  return value.item() if isinstance(value, np.generic) else value
