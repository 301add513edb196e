"""A loss or a parameter that becomes NaN stops the run, names its step, and is in no checkpoint."""

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.wiring import supervised_experiment
from launch.flags import load_config
from research.data import images
from research.data.examples import Arrays
from research.errors import NotFiniteError
from research.metrics import mean
from research.train import checkpoint
from research.train.loop import train
from research.train.modules import import_file
from research.train.optimizer import Optimizer
from research.train.run import first_state, to_save
from research.types import Aux

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
    list(train(config, tmp_path, experiment=with_fault(config.build(), change)))
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
    list(train(config, tmp_path, experiment=with_fault(config.build(), change)))
  assert restored_step(config, tmp_path) == (bad_step - 1) // 5 * 5


def test_an_evaluation_that_is_not_finite_stops_the_run_before_the_training_loss_is(tmp_path):
  """One step so long that the parameters are still numbers, and what is made of them no longer."""
  config = load_config(str(CONFIG))
  config.optimizer, config.eval_every, config.checkpoint_every = Optimizer('sgd', lr=1e25), 1, 1
  with pytest.raises(NotFiniteError, match='loss of an evaluation after step 1 is NaN'):
    list(train(config, tmp_path))
  assert 'NaN' not in (tmp_path / 'metrics.jsonl').read_text()
  assert checkpoint.Checkpoints(tmp_path / 'checkpoints').steps() == []


KEPT = 'the newest checkpoint is the last good one; metrics.jsonl holds no NaN'


def last_words(experiment, config, workdir, told) -> tuple[str, int]:
  """What a launcher says of the run, once its newest checkpoint has been seen to be good."""
  line, code = told(lambda: list(train(config, workdir, experiment=experiment)))
  assert restored_step(config, workdir) == 10 and 'NaN' not in (workdir / 'metrics.jsonl').read_text()
  return line, code


def rooted(example: int):
  """Objective whose gradient is NaN, and whose value is not, at one example: that of a root at zero."""

  def objective(model, variables, batch, key, train):
    logits = model.apply(variables, batch['inputs'], train=train)
    reached = jnp.where(batch['index'] == example, 0.0, 1.0)
    return mean(jnp.sqrt(reached * jnp.square(logits).sum(-1)), batch.get('mask')), Aux({}, {})

  return objective


def test_nan_from_the_loss(tmp_path, told, fault):
  config = load_config(str(CONFIG))

  def change(state, metrics):
    factor = jnp.where(state.step == 12, jnp.nan, 1)
    return state, {**metrics, 'loss': metrics['loss']._replace(total=metrics['loss'].total * factor)}

  line, code = last_words(with_fault(config.build(), change), config, tmp_path, told)
  assert code == 5 and 'the loss of step 12 is' in line and 'learning rate' in line
  fault('NaN from the loss', line, code, KEPT)


@pytest.mark.parametrize('form', ['resident', 'streamed'])
def test_nan_from_the_data(form, tmp_path, told, fault):
  config, remote = load_config(str(CONFIG)), import_file(CONFIG.with_name('regularized.py'))
  experiment = config.build()
  source = experiment.train
  example = int(source.indices(11)[5])  # of the first epoch: no step before has it
  inputs = source.examples.arrays['inputs'].astype(np.float32)
  inputs[example, 2, 3] = np.nan
  examples = Arrays({**source.examples.arrays, 'inputs': inputs})
  spoilt = dataclasses.replace(source, examples=examples if form == 'resident' else remote.Remote(examples))
  line, code = last_words(dataclasses.replace(experiment, train=spoilt), config, tmp_path, told)
  assert code == 5 and f'example {example} has non-finite inputs;' in line
  fault('NaN from the data', line, code, KEPT)


@pytest.mark.parametrize('fault', ['gradient', 'data'])
def test_debug_nans_names_the_step_the_operation_and_its_module(fault):
  config = load_config(str(CONFIG))
  config.eval_every = 0
  source = config.build().train
  example = int(source.indices(1)[5])
  experiment = supervised_experiment(config, images.digits(), {}, rooted(example), lambda metrics: 0.0)
  if fault == 'data':
    inputs = source.examples.arrays['inputs'].astype(np.float32)
    inputs[example, 2, 3] = np.nan
    examples = Arrays({**source.examples.arrays, 'inputs': inputs})
    experiment = dataclasses.replace(experiment, train=dataclasses.replace(source, examples=examples))
  place = {
    'gradient': rf'div \(rooted.<locals>.objective, {__file__}:\d+\)',  # of 1 / sqrt(0)
    'data': f'example {example} has non-finite inputs; fix the data',
  }[fault]
  with jax.debug_nans(True), pytest.raises(NotFiniteError, match=rf'^step 2 makes NaN or infinity: {place}; '):
    list(train(config, experiment=experiment))


def test_nan_from_the_gradient(tmp_path, told, fault):
  config = load_config(str(CONFIG))
  example = int(config.build().train.indices(14)[5])
  experiment = supervised_experiment(config, images.digits(), {}, rooted(example), lambda metrics: 0.0)
  line, code = told(lambda: list(train(config, tmp_path, experiment=experiment)))
  assert code == 5 and 'parameters or statistics after step 15 are' in line
  assert checkpoint.Checkpoints(tmp_path / 'checkpoints').steps() == [5, 10]
  assert 'NaN' not in (tmp_path / 'metrics.jsonl').read_text()
  fault('NaN from the gradient', line, code, KEPT)
