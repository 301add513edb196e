"""The loop beside a bare one: its sums, its bar, and which experiments are measured."""

import dataclasses
import itertools
import time
from pathlib import Path

import pytest

from benchmarks import loop
from launch.flags import load_config
from research.errors import DataError
from research.train.config import Config

CONFIG = Path(__file__).parents[1] / 'configs' / 'classifier.py'


def test_numbers_are_medians_of_turns_and_of_their_ratios():
  row = loop.compared([(1.1, 1.0), (3.0, 2.0), (1.2, 1.0)], steps=100)
  assert row == {
    'loop_seconds': 0.012,
    'bare_seconds': 0.01,
    'extra_seconds': pytest.approx(0.002),
    'ratio': 1.2,
    'spread': [1.1, 1.5],
    'met': False,
  }
  last = loop.table([{'experiment': 'mlp', **row}]).splitlines()[-1]
  assert last.replace('|', ' ').split() == ['mlp', '10.000', '1.200', '1.100', '1.500', '2000', 'no']


@pytest.mark.parametrize(('turn', 'met'), [((1.02, 1.0), True), ((0.14, 0.1), True), ((1.06, 1.0), False)])
def test_the_target_is_met_by_the_ratio_or_by_what_a_step_takes_more(turn, met):
  assert loop.compared([turn], steps=1000)['met'] is met


def test_steps_that_compile_do_not_count():
  taken = itertools.count()

  def run(steps):
    time.sleep(sum(0.1 if next(taken) < 2 else 0.001 for _ in range(steps)))

  assert 40 < loop.steps_within(0.1, run) <= 100


@pytest.mark.parametrize(('every', 'saves'), [(50, 50), (100, 0), (1000, 0), (0, 0)])
def test_only_saves_before_the_last_step_count(every, saves):
  config = loop.without_end(Config(steps=100, checkpoint_every=every, eval_every=10))
  assert (config.checkpoint_every, config.eval_every) == (saves, 0) and config.steps > 10**8


def test_the_loop_is_measured_with_its_bar_on(monkeypatch):
  terminals, kept = [], loop.Terminal
  monkeypatch.setattr(loop, 'Terminal', lambda: terminals.append(kept()) or terminals[-1])
  config = dataclasses.replace(load_config(str(CONFIG)), checkpoint_every=0)
  row = loop.measure('tiny', config, rounds=2, seconds=0.05)
  assert row['experiment'] == 'tiny' and row['steps'] >= 1 and row['bare_seconds'] > 0
  (terminal,) = terminals
  assert 'training  |' in terminal.getvalue() and '/1000000000' in terminal.getvalue()


def test_an_experiment_whose_data_cannot_be_had_is_left_out(monkeypatch, capsys):
  def measure(name, *_):
    if name == 'lstm_fsdd':
      raise DataError('fsdd: cannot be fetched')
    return {'experiment': name}

  monkeypatch.setattr(loop, 'measure', measure)
  rows = list(loop.all_recorded(2, 0.1))
  assert capsys.readouterr().out == 'lstm_fsdd is left out: fsdd: cannot be fetched\n'
  assert {row['experiment'] for row in rows} == {folder.name for folder in loop.recorded()} - {'lstm_fsdd'}
