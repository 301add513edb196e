"""The validation part alone chooses among trials, and is all that their table shows."""

import json
import math

import pytest

from research.errors import ConfigError
from research.sweep.selection import by_metric, by_score, ranked, read_outcome, trials_table

METRICS = {  # validation prefers b, the test part c
  'a': {'validation/accuracy': 0.7, 'validation/loss': 0.9, 'test/accuracy': 0.7, 'test/loss': 0.8},
  'b': {'validation/accuracy': 0.9, 'validation/loss': 0.6, 'test/accuracy': 0.4, 'test/loss': 2.5},
  'c': {'validation/accuracy': 0.8, 'validation/loss': 0.5, 'test/accuracy': 0.97, 'test/loss': 0.1},
}
SCORE = by_score(lambda metrics: metrics['validation/accuracy'])


def outcomes(tmp_path, metrics, code=0):
  found = []
  for number, (name, values) in enumerate(metrics.items()):
    (tmp_path / name).mkdir(exist_ok=True)
    (tmp_path / name / 'result.json').write_text(json.dumps({'metrics': values, 'seconds': 12.3}))
    found.append(read_outcome(name, {'lr': 10.0**-number}, code, tmp_path / name))
  return found


def test_the_test_part_does_not_choose_and_is_not_shown(tmp_path):
  found = ranked(outcomes(tmp_path, METRICS), SCORE)
  assert [outcome.name for outcome in found] == ['b', 'c', 'a']
  table = trials_table(found, SCORE)
  assert 'test' not in table and '0.97' not in table and '2.5' not in table
  others = {name: {**values, 'test/accuracy': 1.0, 'test/loss': 1e-9} for name, values in METRICS.items()}
  assert trials_table(ranked(outcomes(tmp_path, others), SCORE), SCORE) == table


def test_a_score_that_looks_at_the_test_part_finds_nothing(tmp_path):
  with pytest.raises(
    ConfigError, match="score of the experiment reads 'test/accuracy', but the trials have validation/"
  ):
    ranked(outcomes(tmp_path, METRICS), by_score(lambda metrics: metrics['test/accuracy']))


def test_a_metric_and_its_direction_choose(tmp_path):
  found = outcomes(tmp_path, METRICS)
  assert [outcome.name for outcome in ranked(found, by_metric('validation/loss', 'min'))] == ['c', 'b', 'a']
  assert [outcome.name for outcome in ranked(found, by_metric('validation/loss', 'max'))] == ['a', 'b', 'c']


def test_equal_trials_stay_in_order_and_those_without_a_number_come_last(tmp_path):
  same = dict.fromkeys(('x', 'y'), METRICS['a'])
  broken = {'n': {'validation/accuracy': math.nan}, 'i': {'validation/accuracy': math.inf}}
  found = outcomes(tmp_path, broken | same)
  assert [outcome.name for outcome in ranked(found, SCORE)] == ['x', 'y', 'n', 'i']


def test_the_table_says_how_a_trial_ended(tmp_path):
  ended = outcomes(tmp_path, {'a': METRICS['a']})
  codes = [
    read_outcome(name, {'lr': 1.0}, code, tmp_path / 'a')
    for name, code in (('f', 5), ('d', 128), ('h', 129), ('s', 143), ('n', None))
  ]

  def cells(trials):
    return [[cell.strip() for cell in line.split('|')[1:-1]] for line in trials_table(trials, SCORE).split('\n')]

  rows = cells([*ended, *codes])
  assert rows[2] == ['trial', 'lr', 'state', 'score', 'accuracy', 'loss', 'time']
  assert rows[4:] == [
    ['a', '1', 'done', '0.7', '0.7', '0.9', '12 s'],
    ['f', '1', 'failed, exit 5', '', '', '', ''],
    ['d', '1', 'failed, exit 128', '', '', '', ''],
    ['h', '1', 'stopped, exit 129', '', '', '', ''],
    ['s', '1', 'stopped, exit 143', '', '', '', ''],
    ['n', '1', 'not run', '', '', '', ''],
  ]
  assert cells(ended)[4:] == rows[4:5]


@pytest.mark.parametrize(
  ('make', 'told'),
  [
    (lambda: by_metric('test/accuracy', 'max'), '--metric=test/accuracy: only validation metrics may select'),
    (lambda: by_metric('train/loss', 'min'), 'only validation metrics'),
    (lambda: by_metric('accuracy', 'max'), 'only validation metrics'),
    (lambda: by_metric('validation/loss', ''), '--direction=min or --direction=max'),
    (lambda: by_score(None), '--metric=validation/NAME'),
  ],
)
def test_mistakes_are_one_line(make, told):
  with pytest.raises(ConfigError) as error:
    make()
  assert told in str(error.value) and '\n' not in str(error.value)


def test_an_unknown_metric_names_those_that_there_are(tmp_path):
  with pytest.raises(ConfigError, match='the trials have validation/accuracy, validation/loss'):
    ranked(outcomes(tmp_path, METRICS), by_metric('validation/acuracy', 'max'))
