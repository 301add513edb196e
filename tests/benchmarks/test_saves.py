"""The cost of a save: which steps it slows, and what they take beyond others."""

import jax
import numpy as np
import pytest

from benchmarks import saves
from research.errors import ConfigError
from research.train.run import Record


def test_the_cost_is_what_steps_take_beyond_others():
  times = [(3.0, True), (0.3, True), (0.5, True), (0.1, False), (0.1, False)]
  period = saves.Period(saves.Step(*step) for step in times)
  assert (period.during, period.others) == ([3.0, 0.3, 0.5], [0.1, 0.1])
  assert period.costs(0.1) == pytest.approx(
    {'period_seconds': 4.0, 'stall_seconds': 2.9, 'write_seconds': 3.8, 'lost_seconds': 3.5}
  )


def test_a_step_is_slowed_while_the_save_is_unfinished(tmp_path):
  unfinished = tmp_path / 'checkpoints' / 'unfinished'

  def records():
    yield Record(0, {}, 'saving', None)
    unfinished.mkdir(parents=True)
    yield Record(1, {'train/loss': 1.0}, 'training', None)
    unfinished.rmdir()
    yield Record(2, {'train/loss': 1.0}, 'training', None)

  assert [step.writing for step in saves.steps(records(), tmp_path)] == [True, False]


def test_saves_of_a_run():
  row = saves.measure(parameters=600, rounds=1, seconds=0.5)
  assert 0 < row['step_seconds'] < row['write_seconds'] < row['period_seconds'] < 60
  assert row['peak_bytes'] >= row['bytes_before'] > 1e8
  known = {**row, 'parameters': 10**8, 'step_seconds': 0.2, 'stall_seconds': 1.5, 'write_seconds': 8.0}
  known |= {'lost_seconds': 3.0, 'period_seconds': 60.0, 'bytes_before': 1.5e9, 'peak_bytes': 3e9}
  cells = saves.table([known]).splitlines()[-1].replace('|', ' ').split()
  assert cells == ['100', 'M', '200', '1.50', '8.00', '3.00', '5.0%', 'of', '60', 's', '1.50', '3.00']


def test_saves_without_a_pause_are_refused():
  with pytest.raises(ConfigError, match='--seconds: a save takes longer; give more'):
    saves.summary([saves.Period([saves.Step(1.0, True), saves.Step(0.5, True)])])


def test_a_perceptron_has_about_as_many_parameters_as_asked():
  experiment = saves.perceptron(100_000)
  batch = experiment.train.examples.rows(np.arange(saves.BATCH))
  state = jax.eval_shape(experiment.task.init, jax.random.key(0), batch)
  assert sum(leaf.size for leaf in jax.tree.leaves(state.params)) == pytest.approx(100_000, rel=0.02)
