"""Smaller runs: what shrinks with the steps, and what is the recorded experiment's own."""

import dataclasses

import pytest

from research.errors import ConfigError
from research.train.config import Config
from research.train.optimizer import Optimizer
from research.train.scales import at_scale, scales, shrunk, steps_of

STEP = Optimizer(
  'sgd', schedule='step', warmup_steps=50, schedule_steps=900, milestones=(500, 800), decay_steps=20, l2=0.1
)
RECORDED = Config(
  steps=1_000, optimizer=STEP, ema_decay=0.99, log_every=100, eval_every=250, checkpoint_every=0, keep_best=3
)


def test_all_that_is_measured_in_steps_shrinks_with_them_and_nothing_else():
  optimizer = dataclasses.replace(STEP, warmup_steps=5, schedule_steps=90, milestones=(50, 80), decay_steps=2)
  durations = {'log_every': 10, 'eval_every': 25, 'checkpoint_every': 0}
  assert shrunk(RECORDED, 100) == dataclasses.replace(RECORDED, steps=100, optimizer=optimizer, **durations)
  assert shrunk(RECORDED, 1_000) == RECORDED
  assert shrunk(RECORDED, 2).log_every == shrunk(RECORDED, 2).optimizer.warmup_steps == 1, 'only 0 is off'


def test_tiny_is_the_recorded_experiment_shrunk_with_sizes_of_its_own():
  tiny = scales(RECORDED, steps=20, batch_size=4)['tiny']
  assert tiny == dataclasses.replace(shrunk(RECORDED, 20), batch_size=4)
  assert scales(RECORDED, steps=20, eval_every=7)['tiny'].eval_every == 7


def test_fast_has_a_fiftieth_of_the_steps():
  assert scales(RECORDED, steps=2)['fast'] == shrunk(RECORDED, 20)
  assert scales(Config(steps=3), steps=2)['fast'].steps == 1


def test_steps_see_the_examples_so_many_times():
  assert [steps_of(epochs, 1257, 128) for epochs in (2, 0.001, 0)] == [20, 1, 1]  # 19.64 steps are two epochs


def test_an_unknown_scale_names_those_that_there_are():
  config = Config()
  assert at_scale('', {'': config, 'tiny': Config(steps=1)}) is config
  with pytest.raises(ConfigError, match="scale 'small' is unknown; there are: tiny$"):
    at_scale('small', {'': config, 'tiny': config})
