"""What every experiment's config has; an experiment adds its own fields and `build`."""

import contextlib
import copy
import dataclasses
import functools
import inspect
import json
import math
from collections.abc import Callable, Collection, Iterator, Mapping
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import numpy as np

from research.errors import ConfigError, check_range, unknown
from research.parallel.mesh import MeshShape
from research.tasks.descend import Compute
from research.tasks.network import Network
from research.tasks.precision import PRECISIONS
from research.train.experiment import Experiment, Sampler
from research.train.optimizer import Optimizer, make_optimizer
from research.types import Fitted

START = ('init_from', 'init_map')  # what is read at the start of a run, and no more once there is a checkpoint

# What the loop alone reads, and no experiment is built from.
LOOP = ('log_every', 'eval_every', 'checkpoint_every', 'keep_latest', 'keep_best', 'loader_threads', *START)

# What a run may change when it goes on; anything else would make it another run.
RESUMABLE = (
  'steps',
  'eval_batch_size',
  *LOOP,
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
  ema_decay: float = 0.0  # decay of the averages of parameters and batch statistics that are evaluated
  precision: str = 'float32'  # float32, bfloat16 or float16: of the computation; parameters stay float32
  accumulate: int = 1  # micro-batches that a step's batch is taken in, one after another
  remat: str = ''  # policy by which a model's blocks are computed anew in the backward pass: everything, dots_saveable
  log_every: int = 100  # mean of the training metrics
  eval_every: int = 1_000  # on the validation part
  eval_batch_size: int = 500  # examples at once; no number depends on it but by rounding
  checkpoint_every: int = 1_000  # the last step is saved too
  keep_latest: int = 2  # checkpoints
  keep_best: int = 1  # checkpoints of the best validation scores; each is saved when it is measured
  loader_threads: int = 2  # that load batches of a dataset too large for the devices, one batch each
  init_from: str = ''  # workdir of a run whose parameters, batch statistics and averages this one starts from
  init_map: tuple[
    str, ...
  ] = ()  # which of them go where, as SOURCE=TARGET: encoder/*=backbone/*; empty: by their paths
  mesh: MeshShape = dataclasses.field(default_factory=MeshShape)

  def __init_subclass__(cls, **options):
    """Has the `build` of every config validate first, and note in the experiment what it was built from."""
    super().__init_subclass__(**options)
    if 'build' in vars(cls):
      cls.build = _of_this_config(cls.build)

  def build(self) -> Experiment:
    """Wires the experiment; the one place where its parts meet.

    A config that fits something on its training data takes it, `build(fitted=None)`: where it is given, no training
    data are read for it.
    """
    raise ConfigError(f'config: its class {type(self).__name__} has no method build')

  def network(self, fitted: Fitted) -> Network:
    """The network, from this config and what was fitted on the training data: no other data are read."""
    raise ConfigError(f'config: its class {type(self).__name__} has no method network')

  def sampler(self, fitted: Fitted) -> Sampler:
    """What `launch.sample` draws, from the run's workdir alone.

    Raises ConfigError where an experiment has nothing to sample.
    """
    name = type(self).__module__
    raise ConfigError(f'--workdir: a run of {name}, which has no sampler; use launch.evaluate')

  @property
  def compute(self) -> Compute:
    """How a task of this config computes its gradients."""
    return Compute(self.precision, self.accumulate, self.mesh.axis_name)

  def validate(self) -> None:
    """Raises ConfigError for the first value that no run could use; stores Python's own numbers in place of numpy's."""
    check_types(self)
    check_at_least(self, 1, 'batch_size', 'accumulate', 'log_every', 'eval_batch_size', 'keep_latest', 'loader_threads')
    check_at_least(self, 0, 'eval_every', 'checkpoint_every', 'keep_best')
    check_within(self, 'seed', 0, 2**32 - 1)  # JAX would cut off the rest
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
      make_optimizer(self.optimizer, self.steps)  # now, and not once the data have been fetched


def check_init_map(init_from: str, init_map: tuple[str, ...]) -> None:
  """Raises ConfigError for an entry that is not SOURCE=TARGET with as many asterisks on both sides."""
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

  Otherwise config.json would describe another run than the one trained. Of an experiment wired by hand no more is known
  than the size of its batches.
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
  """Raises ConfigError for the first of these fields that is less."""
  for name in names:
    if getattr(config, name) < at_least:
      bound = f'must be at least {at_least}' if at_least else 'must not be negative (0 is off)'
      raise ConfigError(f'config.{name}={getattr(config, name)}: {bound}')


def check_each(config: Config, at_least: int, *names: str) -> None:
  """Raises ConfigError for the first of these tuples that has an entry which is less."""
  for name in names:
    if min(getattr(config, name), default=at_least) < at_least:
      raise ConfigError(f'config.{name}={getattr(config, name)}: each must be at least {at_least}')


def check_filled(config: Config, *names: str) -> None:
  """Raises ConfigError for the first of these tuples that is empty."""
  for name in names:
    if not getattr(config, name):
      raise ConfigError(f'config.{name}=(): must have at least one entry')


def check_below(config: Config, below: float, *names: str) -> None:
  """Raises ConfigError for the first of these fields that is not from 0 on and less than `below`."""
  for name in names:
    check_range(f'config.{name}', getattr(config, name), below)


def check_within(config: Config, name: str, at_least: int, at_most: int) -> None:
  """Raises ConfigError where the field is not from `at_least` to `at_most`."""
  if not at_least <= getattr(config, name) <= at_most:
    raise ConfigError(f'config.{name}={getattr(config, name)}: must be from {at_least} to {at_most}')


def check_known(config: Config, name: str, known: Collection[str]) -> None:
  """Raises ConfigError where the field is none of the words `known`."""
  if (value := getattr(config, name)) not in known:
    raise ConfigError(f'config.{name}={value!r}: {unknown(value, known)}')


@contextlib.contextmanager
def as_field() -> Iterator[None]:
  """Has a ConfigError raised within, which begins with a field's bare name, name it in full."""
  try:
    yield
  except ConfigError as error:
    raise ConfigError(f'config.{error}') from error


def from_fields(cls: type, fields: Mapping[str, Any]) -> Any:
  """A config of class `cls` from the nested dicts that `dataclasses.asdict` and JSON made of one."""
  config = _from_fields(cls, fields)
  check_types(config)
  return config


def check_comes_back(config: Any) -> None:
  """Raises ConfigError for the first field that would have another value when it is read from config.json."""
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
  """Raises ConfigError for the first field of a dataclass that is not of its type, or that JSON does not give back.

  A float may be given as an int, but never as NaN or infinity. numpy's numbers become Python's own.
  """
  kinds = get_type_hints(type(config))
  for field in dataclasses.fields(config):
    name, kind, value = prefix + field.name, kinds[field.name], _plain(getattr(config, field.name))
    if dataclasses.is_dataclass(value):
      if type(value) is not kind:  # config.json names no classes, so that only the annotation can
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
  """Whether a value is of a type that is written `int`, `tuple[float, ...]`, `Literal['a', 'b']` or `str | None`."""
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
  """What is wrong with a value that does not fit."""
  if get_origin(kind) is Literal:
    return unknown(value, map(str, get_args(kind)))
  entries = value if isinstance(value, tuple) else (value,)
  if any(isinstance(entry, float) and not math.isfinite(entry) for entry in entries):
    return 'must be finite'
  return f'must be {_text(kind)}'


def _text(kind: Any) -> str:
  """A type as it is written."""
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
    if not known[name].init:  # `__post_init__` makes it
      continue
    nested = dataclasses.is_dataclass(kinds[name]) and isinstance(value, Mapping)
    values[name] = _from_fields(kinds[name], value) if nested else _tuples(value)
  return cls(**values)


def _tuples(value: Any) -> Any:
  return tuple(map(_tuples, value)) if isinstance(value, list) else value


def _plain(value: Any) -> Any:
  """Python's own numbers of numpy's."""
  if isinstance(value, tuple):
    return tuple(map(_plain, value))
  return value.item() if isinstance(value, np.generic) else value
