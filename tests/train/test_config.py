"""What a config refuses in one line before anything is compiled."""

import dataclasses
import json
from typing import Any, Literal

import numpy as np
import pytest

from research.errors import ConfigError
from research.parallel.mesh import MeshShape
from research.train.config import (
  REMAT,
  Config,
  as_field,
  check_at_least,
  check_comes_back,
  check_within,
  flatten,
  from_fields,
)
from research.train.optimizer import Optimizer


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    ({'precision': 'bfloat'}, r"config.precision='bfloat': is unknown; nearest: bfloat16"),
    ({'precision': ''}, r"config.precision='': is unknown; nearest: float32, bfloat16, float16"),
    ({'remat': 'dots_savable'}, r"config.remat='dots_savable': is unknown; nearest: dots_saveable"),
    ({'accumulate': 0}, r'config.accumulate=0: must be at least 1'),
    ({'remat': 'Dots_Saveable'}, r"config.remat='Dots_Saveable': is unknown; nearest: dots_saveable"),
    ({'accumulate': 3}, r'config.accumulate=3: must divide config.batch_size=32$'),
  ],
)
def test_values_that_no_run_could_use(change, message):
  with pytest.raises(ConfigError, match=message):
    dataclasses.replace(Config(batch_size=32), **change).validate()


def test_all_that_is_offered_is_taken():
  for policy in ('', *REMAT):
    Config(batch_size=32, remat=policy, accumulate=8, precision='float16').validate()


@dataclasses.dataclass
class Nested:
  """A dataclass of a user's own."""

  sizes: tuple[int, ...] = (1, 2)


@dataclasses.dataclass
class Typed(Config):
  """A field of every kind."""

  hidden_sizes: tuple[int, ...] = (8, 8)
  limits: tuple[float, float] = (0.0, 1.0)
  pairs: tuple[tuple[int, str], ...] = ((1, 'a'),)
  kind: Literal['plain', 'gated', 3] = 'plain'
  longest: int | None = None
  bold: bool = False
  anything: Any = 1
  nested: Nested = dataclasses.field(default_factory=Nested)


class Wider(Optimizer):
  """What config.json would give back as an Optimizer."""


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    ({'steps': 3 * 1257 / 32}, 'config.steps=117.84375: must be int'),
    ({'steps': 3.0}, 'config.steps=3.0: must be int'),
    ({'steps': True}, 'config.steps=True: must be int'),
    ({'steps': '3'}, "config.steps='3': must be int"),
    ({'steps': None}, 'config.steps=None: must be int'),
    ({'ema_decay': '0.5'}, "config.ema_decay='0.5': must be float"),
    ({'ema_decay': False}, 'config.ema_decay=False: must be float'),
    ({'ema_decay': float('nan')}, 'config.ema_decay=nan: must be finite'),
    ({'bold': 1}, 'config.bold=1: must be bool'),
    ({'precision': 32}, 'config.precision=32: must be str'),
    ({'hidden_sizes': [4, 8]}, 'config.hidden_sizes=[4, 8]: must be tuple[int, ...]'),
    ({'hidden_sizes': (True, 8)}, 'config.hidden_sizes=(True, 8): must be tuple[int, ...]'),
    ({'hidden_sizes': 8}, 'config.hidden_sizes=8: must be tuple[int, ...]'),
    ({'limits': (0.0,)}, 'config.limits=(0.0,): must be tuple[float, float]'),
    ({'limits': (0, float('inf'))}, 'config.limits=(0, inf): must be finite'),
    ({'pairs': ((1, 2),)}, 'config.pairs=((1, 2),): must be tuple[tuple[int, str], ...]'),
    ({'kind': 'Gate'}, "config.kind='Gate': is unknown; nearest: gated"),
    ({'kind': 4}, 'config.kind=4: is unknown; nearest: plain, gated, 3'),
    ({'longest': 1.5}, 'config.longest=1.5: must be int | None'),
    ({'anything': [1]}, 'config.anything=[1]: must consist of numbers, strings, bools and tuples'),
    ({'anything': {1: 2}}, 'config.anything={1: 2}: must consist of'),
    ({'anything': len}, 'config.anything=<built-in function len>: must consist of'),
    ({'mesh': 1}, 'config.mesh=1: must be MeshShape'),
    ({'mesh': MeshShape(data=2.0)}, 'config.mesh.data=2.0: must be int'),
    ({'optimizer': MeshShape()}, 'config.optimizer: must be Optimizer, not MeshShape'),
    ({'optimizer': Wider()}, 'config.optimizer: must be Optimizer, not Wider'),
    ({'optimizer': Optimizer(milestones=[3])}, 'config.optimizer.milestones=[3]: must be tuple[int, ...]'),
    ({'optimizer': Optimizer('AdamW')}, "config.optimizer.name='AdamW': is unknown; nearest: adamw"),
    ({'nested': Nested((1, 2.5))}, 'config.nested.sizes=(1, 2.5): must be tuple[int, ...]'),
    ({'seed': -1}, 'config.seed=-1: must be from 0 to 4294967295'),
  ],
)
def test_a_value_of_another_type_is_refused_wherever_it_comes_from(change, message):
  config = dataclasses.replace(Typed(), **change)
  with pytest.raises(ConfigError) as told:
    config.validate()
  assert str(told.value).startswith(message)


@pytest.mark.parametrize(
  ('saved', 'message'),
  [
    ({'steps': 117.84375}, 'config.steps=117.84375: must be int'),
    ({'hidden_sizes': [True, 8]}, r'config.hidden_sizes=\(True, 8\): must be tuple'),
    ({'mesh': 1}, 'config.mesh=1: must be MeshShape'),
    ({'optimizer': {'lr': 'fast'}}, "config.optimizer.lr='fast': must be float"),
    ({'optimizer': {'rate': 1}}, 'config.rate: Optimizer has no such field'),
  ],
)
def test_a_file_is_checked_too(saved, message):
  with pytest.raises(ConfigError, match=message):
    from_fields(Typed, saved)


def test_numbers_of_numpy_are_stored_as_those_of_python():
  config = Typed(
    steps=np.int64(3),
    ema_decay=np.float32(0.5),
    bold=np.bool(True),
    hidden_sizes=(np.int32(4), 8),
    optimizer=Optimizer(lr=np.float64(0.25)),
    longest=np.int64(7),
    limits=(0, 1),
    kind='gated',
  )
  config.validate()
  assert [type(value) for value in (config.steps, config.ema_decay, config.bold)] == [int, float, bool]
  assert [type(value) for value in (*config.hidden_sizes, config.optimizer.lr, config.longest)] == [
    int,
    int,
    float,
    int,
  ]
  saved = json.loads(json.dumps(dataclasses.asdict(config)))
  assert saved['steps'] == 3 and saved['hidden_sizes'] == [4, 8]
  assert from_fields(Typed, saved) == config


@pytest.mark.parametrize(
  ('name', 'least', 'most'),
  [
    ('steps', 1, 2**31 - 1),
    ('batch_size', 1, None),
    ('log_every', 1, None),
    ('eval_batch_size', 1, None),
    ('keep_latest', 1, None),
    ('loader_threads', 1, None),
    ('eval_every', 0, None),
    ('checkpoint_every', 0, None),
    ('keep_best', 0, None),
    ('seed', 0, 2**32 - 1),
    ('ema_decay', 0.0, 0.999),
  ],
)
def test_the_ends_of_a_range_are_taken_and_what_is_beyond_is_refused(name, least, most):
  for value in (least, most) if most else (least,):
    dataclasses.replace(Config(), **{name: value}).validate()
  for value in (least - 1, *([most + 1] if most else ())):
    with pytest.raises(ConfigError, match=f'^config.{name}={value}: must'):
      dataclasses.replace(Config(), **{name: value}).validate()


def test_fields_of_an_experiment_within_their_ends():
  config = Config(steps=5)
  for least, most in ((5, 5), (1, 9)):
    check_within(config, 'steps', least, most)
  for least, most in ((6, 9), (1, 4)):
    with pytest.raises(ConfigError, match=f'config.steps=5: must be from {least} to {most}'):
      check_within(config, 'steps', least, most)
  check_at_least(config, 5, 'steps')
  with pytest.raises(ConfigError, match='config.steps=5: must be at least 6'):
    check_at_least(config, 6, 'steps')


@pytest.mark.parametrize(
  ('raised', 'told'),
  [
    ('beam=0: must be more', 'config.beam_size=0: must be more'),
    ('width=0: must be more', 'config.width=0: must be more'),
    ('beam: is missing', 'config.beam_size: is missing'),
    ('config.beam=0: must be more', 'config.beam=0: must be more'),
  ],
)
def test_an_error_of_an_argument_names_the_field_that_it_came_from(raised, told):
  with pytest.raises(ConfigError) as caught, as_field(beam='beam_size'):
    raise ConfigError(raised)
  assert str(caught.value) == told


def test_a_field_that_config_json_would_not_give_back_is_named():
  @dataclasses.dataclass
  class Growing:
    kept: int = 1
    grown: int = 2

    def __post_init__(self):
      self.grown += 1

  with pytest.raises(ConfigError, match='config.grown=3: would be 4 when read from config.json'):
    check_comes_back(Growing())
  check_comes_back(Config())


def test_fields_by_their_dotted_names_and_back():
  config = Config(steps=7, optimizer=Optimizer(lr=0.25, milestones=(3, 4)), mesh=MeshShape(2))
  flat = flatten(config)
  assert flat['steps'] == 7 and flat['optimizer.lr'] == 0.25 and flat['mesh.data'] == 2 and 'optimizer' not in flat
  assert from_fields(Config, json.loads(json.dumps(dataclasses.asdict(config)))) == config
