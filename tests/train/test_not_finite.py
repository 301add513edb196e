"""A loss or a parameter that becomes NaN stops the run, names its step, and is in no checkpoint."""

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from launch.flags import load_config
from research.errors import NotFiniteError
from research.train import checkpoint
from research.train.loop import train
from research.train.optimizer import Optimizer
from research.train.run import first_state, to_save

CONFIG = Path(__file__).parents[1] / 'configs' / 'classifier.py'


def with_fault(experiment, change):
  """The experiment with `change(state, metrics)` after every step."""

  def train_step(state, batch, key):
    return change(*experiment.task.train_step(state, batch, key))

  return dataclasses.replace(experiment, task=experiment.task._replace(train_step=train_step))


def restored_step(config, workdir) -> int:
  experiment = config.build()
  batch = {**experiment.train.examples.rows(np.arange(2)), 'index': np.arange(2)}
  abstract = to_save(*jax.eval_shape(lambda: first_state(experiment.task, batch, jax.random.key(0))))
  step, tree = checkpoint.Checkpoints(workdir / 'checkpoints').restore({**abstract, 'lines': np.int32(0)})
  assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(tree)) and tree['state'].step == step
  return step


@pytest.mark.parametrize(('bad_step', 'value'), [(12, np.nan), (12, np.inf), (15, np.nan), (40, np.nan)])
def test_the_first_step_whose_loss_is_not_finite_is_named(bad_step, value, tmp_path):
  config = load_config(str(CONFIG))

  def change(state, metrics):
    factor = jnp.where(state.step == bad_step, value, 1)
    loss = metrics['loss']
    return state, {**metrics, 'loss': loss._replace(total=loss.total * factor)}

  with pytest.raises(NotFiniteError, match=f'loss of step {bad_step} ') as caught:
    list(train(with_fault(config.build(), change), config, tmp_path))
  assert caught.value.exit_code == 5 and str(tmp_path) in str(caught.value)
  assert restored_step(config, tmp_path) == (bad_step - 1) // 5 * 5
  assert 'NaN' not in (tmp_path / 'metrics.jsonl').read_text()


@pytest.mark.parametrize('bad_step', [12, 40])
def test_parameters_that_are_not_finite_are_never_saved(bad_step, tmp_path):
  """As a gradient makes them that is NaN where the loss is not."""
  config = load_config(str(CONFIG))

  def change(state, metrics):
    spoilt = jax.tree.map(lambda leaf: jnp.where(state.step >= bad_step, jnp.nan, leaf), state.params)
    fine = {name: mean._replace(total=jnp.nan_to_num(mean.total)) for name, mean in metrics.items()}
    return state.replace(params=spoilt), fine

  with pytest.raises(NotFiniteError, match=f'parameters or statistics after step {-(-bad_step // 5) * 5} '):
    list(train(with_fault(config.build(), change), config, tmp_path))
  assert restored_step(config, tmp_path) == (bad_step - 1) // 5 * 5


def test_an_evaluation_that_is_not_finite_stops_the_run_before_the_training_loss_is(tmp_path):
  """One step so long that the parameters are still numbers, and what is made of them no longer."""
  config = load_config(str(CONFIG))
  config.optimizer, config.evaluate_every, config.checkpoint_every = Optimizer('sgd', lr=1e25), 1, 1
  with pytest.raises(NotFiniteError, match='loss of an evaluation after step 1 is NaN'):
    list(train(config.build(), config, tmp_path))
  assert 'NaN' not in (tmp_path / 'metrics.jsonl').read_text()
  assert checkpoint.Checkpoints(tmp_path / 'checkpoints').steps() == []
