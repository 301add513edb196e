"""Sweeps against itertools and numpy; names of trials; whose a root is."""

import itertools
import json
import math
import zlib

import numpy as np
import pytest

from research.errors import ConfigError, WorkdirError
from research.sweep import root as roots
from research.sweep.trials import LONGEST, chain, choice, log_uniform, named, product, uniform, values, zipped
from research.train.config import Config
from research.train.optimizer import Optimizer

RATES, WIDTHS, NAMES = [1e-3, 1e-2], [8, 16, 32], ['adam', 'sgd']


def generator(field, seed):
  return np.random.default_rng((seed, zlib.crc32(field.encode())))


def test_product_is_that_of_itertools():
  found = product(values('lr', RATES), values('width', WIDTHS), values('name', NAMES))
  expected = [dict(zip(('lr', 'width', 'name'), row, strict=True)) for row in itertools.product(RATES, WIDTHS, NAMES)]
  assert found == expected
  assert product() == [{}] and product(values('lr', RATES), []) == []


def test_zipped_and_chain():
  assert zipped(values('lr', RATES), values('name', NAMES)) == [
    {'lr': 1e-3, 'name': 'adam'},
    {'lr': 1e-2, 'name': 'sgd'},
  ]
  assert chain(values('lr', RATES), values('width', WIDTHS)) == [*values('lr', RATES), *values('width', WIDTHS)]
  nested = product(zipped(values('lr', RATES), values('name', NAMES)), chain(values('width', WIDTHS), [{}]))
  assert len(nested) == 8 and nested[3] == {'lr': 1e-3, 'name': 'adam'}


def test_sweeps_are_left_as_they_were():
  rates = values('lr', RATES)
  first = product(rates, values('width', WIDTHS))
  assert rates == [{'lr': rate} for rate in RATES] and product(rates, values('width', WIDTHS)) == first


def test_random_sweeps_are_those_of_numpy():
  drawn = [trial['a'] for trial in uniform('a', -1.0, 3.0, 50, seed=7)]
  assert drawn == generator('a', 7).uniform(-1, 3, 50).tolist()
  drawn = [trial['a'] for trial in log_uniform('a', 1e-5, 1e-1, 50, seed=7)]
  np.testing.assert_allclose(drawn, 10 ** (4 * generator('a', 7).uniform(size=50) - 5), rtol=1e-12)
  drawn = [trial['a'] for trial in choice('a', [(1,), (2, 3)], 50, seed=7)]
  assert drawn == [[(1,), (2, 3)][index] for index in generator('a', 7).integers(2, size=50)]


def test_every_decade_is_as_likely():
  decades = [math.floor(math.log10(trial['a'])) for trial in log_uniform('a', 1e-4, 1e-1, 3_000)]
  counts = np.bincount(np.array(decades) + 4)
  assert len(counts) == 3 and abs(counts - 1_000).max() < 4 * math.sqrt(3_000 * 2 / 9)


def test_fields_of_one_seed_are_drawn_independently():
  a, b = ([next(iter(trial.values())) for trial in uniform(field, 0, 1, 1_000)] for field in ('a', 'b'))
  assert abs(np.corrcoef(a, b)[0, 1]) < 4 / math.sqrt(1_000)
  assert uniform('a', 0, 1, 9, seed=1) != uniform('a', 0, 1, 9, seed=2)


@pytest.mark.parametrize(
  ('make', 'told'),
  [
    (lambda: zipped(values('lr', RATES), values('width', WIDTHS)), 'zipped: sweeps of 2, 3 trials'),
    (lambda: product(values('lr', RATES), values('lr', RATES)), 'lr is set by two'),
    (lambda: log_uniform('lr', 0, 1, 3), 'log_uniform of lr: from 0 to 1; must be 0 < low < high'),
    (lambda: log_uniform('lr', 1, 1, 3), 'log_uniform of lr: from 1 to 1; must be 0 < low < high'),
    (lambda: uniform('lr', 1, 1, 3), 'uniform of lr: from 1 to 1; must be low < high'),
    (lambda: named([]), 'no trials'),
    (lambda: named([{'lr': 1}, 'lr=2']), "'lr=2' is not a trial"),
    (lambda: named([{3: 1}]), 'is not a trial'),
  ],
)
def test_mistakes_are_one_line(make, told):
  with pytest.raises(ConfigError) as error:
    make()
  assert told in str(error.value) and '\n' not in str(error.value)


def test_names_are_those_of_folders():
  trials = [{'optimizer.lr': 0.1 / 3}, {'hidden_sizes': [8, 16]}, {'data.path': '../a b/*'}, {'note': 'x' * 999}, {}]
  names = named(trials)
  assert list(names)[:3] == ['0-lr=0.03333', '1-hidden_sizes=8,16', '2-path=..ab'] and list(names)[4] == '4'
  assert all('/' not in name and len(name) <= LONGEST + 2 for name in names)
  assert named(trials) == names and names['1-hidden_sizes=8,16'] == {'hidden_sizes': (8, 16)}


def test_names_are_unique_and_sort_in_the_order_of_the_sweep():
  trials = [{'lr': 1 + number / 1e9} for number in range(101)]
  names = list(named(trials))
  assert len(set(names)) == 101 and sorted(names) == names


@pytest.mark.parametrize(('trials', 'first'), [(10, '0-seed=0'), (11, '00-seed=0')])
def test_names_have_no_more_digits_than_the_last(trials, first):
  assert next(iter(named(values('seed', range(trials))))) == first


def test_the_same_trial_twice_is_one_but_other_types_are_not():
  assert len(named([{'a': 1, 'b': 2}, {'b': 2, 'a': 1}, {'a': np.int64(1), 'b': 2}, {'a': True, 'b': 2}])) == 2
  ((value,),) = (trial.values() for trial in named(values('a', np.array([0.5]))).values())
  assert type(value) is float


def content(folder):
  return {path: path.read_bytes() for path in folder.rglob('*') if path.is_file()}


TRIALS = named(values('optimizer.lr', RATES))


@pytest.fixture
def root(tmp_path):
  facts = roots.facts_of_sweep(Config(), TRIALS)
  with roots.held(tmp_path / 'root', facts):
    roots.claim(tmp_path / 'root', facts)
  return tmp_path / 'root'


@pytest.mark.parametrize(
  ('config', 'trials', 'told'),
  [
    (Config(optimizer=Optimizer(b1=0.5)), TRIALS, 'optimizer.b1: 0.9 there, 0.5 now'),
    (Config(steps=5), TRIALS, 'steps: 1000 there, 5 now'),
    (Config(), named(values('optimizer.lr', [1e-3])), "trial 1-lr=0.01: {'optimizer.lr': 0.01} there, None now"),
    (Config(), named(values('seed', range(9))), '; and '),
  ],
)
def test_the_root_of_another_sweep_is_refused_and_left_as_it_is(config, trials, told, root):
  before = content(root)
  facts = roots.facts_of_sweep(config, trials)
  with pytest.raises(WorkdirError, match='belongs to another sweep') as error, roots.held(root, facts):
    pass
  assert told in str(error.value) and '\n' not in str(error.value) and content(root) == before


def test_the_root_of_the_same_sweep_is_taken_again_but_not_twice_at_once(root):
  facts = roots.facts_of_sweep(Config(optimizer=Optimizer(milestones=())), TRIALS)
  with roots.held(root, facts), pytest.raises(WorkdirError, match='another sweep is using it'), roots.held(root, facts):
    pass
  with roots.held(root, facts):
    pass


def test_a_folder_with_other_files_is_no_root(tmp_path):
  (tmp_path / 'thesis.tex').write_text('mine')
  facts = roots.facts_of_sweep(Config(), TRIALS)
  with pytest.raises(WorkdirError, match=r'no sweep\.json'), roots.held(tmp_path, facts):
    pass
  (tmp_path / 'thesis.tex').rename(tmp_path / 'sweep.json')
  with pytest.raises(WorkdirError, match='is not JSON'), roots.held(tmp_path, facts):
    pass
  assert (tmp_path / 'sweep.json').read_text() == 'mine'


def test_facts_come_back_from_json(root):
  assert json.loads((root / 'sweep.json').read_text()) == roots.facts_of_sweep(Config(), TRIALS)
