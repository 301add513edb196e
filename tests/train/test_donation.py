"""The memory of a State is given to the next: the one before is gone."""

import dataclasses
from pathlib import Path

import jax
import pytest

from launch.flags import load_config
from research.train.loop import train

CONFIGS = Path(__file__).parents[1] / 'configs'


@pytest.mark.parametrize('name', ['regularized', 'ring', 'stream'])
def test_the_old_state_is_gone_after_a_step(name):
  config = load_config(f'{CONFIGS / name}.py')
  unmeasured = {'evaluators': {'validation': lambda state, key: iter(())}, 'final_evaluators': {}}
  records = train(config, experiment=dataclasses.replace(config.build(), **unmeasured))
  old = next(record for record in records if record.status == 'evaluating').state
  assert not any(leaf.is_deleted() for leaf in jax.tree.leaves(old))
  new = next(record for record in records if record.step > 10).state
  assert all(leaf.is_deleted() for leaf in jax.tree.leaves(old)) and old is not new
  assert not any(leaf.is_deleted() for leaf in jax.tree.leaves(new))
