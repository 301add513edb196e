"""Runs under JAX's own settings: 64 bits, and without jit."""

import dataclasses
from pathlib import Path

import jax
import numpy as np
import pytest

from launch.flags import load_config
from research.train.loop import train
from research.train.optimizer import Optimizer
from research.train.run import first_state, make_step

CONFIGS = Path(__file__).parents[1] / 'configs'


class Feed:
  """Batches as the source makes them."""

  def batch(self, inputs, step):
    return inputs


@pytest.mark.parametrize('accumulate', [1, 2])
@pytest.mark.parametrize('name', ['regularized', 'series', 'stream'])
def test_in_64_bits_a_step_leaves_every_dtype_as_it_was(name, accumulate, x64):
  """Linen's batch statistics are float32 among wider parameters; a run that is compiled once takes no others."""
  config = load_config(f'{CONFIGS / name}.py')
  config.batch_size, config.optimizer = 8, Optimizer('adamw', schedule='cosine', weight_decay=0.1)
  config.accumulate, config.ema_decay = 1 if name == 'stream' else accumulate, 0.9
  experiment, key, index = config.build(), jax.random.key(0), np.arange(8)
  batch = {**experiment.train.examples.rows(index), 'index': index}
  before = jax.eval_shape(lambda batch: first_state(experiment.task, batch, key), batch)
  assert jax.eval_shape(make_step(experiment.task, Feed()), *before, batch, key) == before
  assert any(leaf.dtype == np.float64 for leaf in jax.tree.leaves(before))


def test_a_run_without_jit_takes_the_same_steps(monkeypatch):
  warned = []
  monkeypatch.setattr('research.train.run.logging.warning', warned.append)
  config = load_config(f'{CONFIGS}/classifier.py')
  config.steps, config.batch_size = 1, 4
  experiment = dataclasses.replace(config.build(), evaluators={}, final_evaluators={})
  *_, compiled = train(config, experiment=experiment)
  assert not warned
  with jax.disable_jit():
    *_, plain = train(config, experiment=experiment)
  assert len(warned) == 1 and 'JAX_DISABLE_JIT' in warned[0]
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), compiled.state, plain.state)
