"""Averaged parameters and batch statistics: what is evaluated, predicted with and saved."""

from pathlib import Path

import jax
import numpy as np
import optax
import pytest

from launch.flags import load_config
from research.data.preprocess import standardize
from research.models.cnn import ConvNet
from research.train import checkpoint
from research.train.loop import train
from research.train.run import first_state, to_save

CONFIG = Path(__file__).parents[1] / 'configs' / 'regularized.py'


@pytest.fixture(scope='module')
def run(tmp_path_factory):
  """The config, the experiment, the last record and the workdir of a run with averaged parameters."""
  folder, config = tmp_path_factory.mktemp('run'), load_config(str(CONFIG))
  experiment = config.build()
  *_, last = train(config, folder, experiment=experiment)
  return config, experiment, last, folder


def outputs(params, statistics, inputs) -> np.ndarray:
  """By the bare model of the config."""
  model = ConvNet((4, 8), 10, (16,), norm='batch')
  scaled = standardize(mean=4.9, std=6.0)({'inputs': inputs})['inputs']
  return model.apply({'params': params, 'batch_stats': statistics}, scaled)


def test_the_average_is_what_is_evaluated(run):
  _, experiment, last, _ = run
  average, own = last.state.ema, {'params': last.state.params, **last.state.mutable}
  examples = experiment.final_evaluators['test'].examples
  rows = examples.rows(np.arange(len(examples)))
  losses = [
    optax.softmax_cross_entropy(
      outputs(params['params'], statistics['batch_stats'], rows['inputs']),
      optax.smooth_labels(jax.nn.one_hot(rows['targets'], 10), 0.1),
    ).mean()
    for params, statistics in ((average, average), (own, average), (average, own))
  ]
  np.testing.assert_allclose(last.metrics['test/loss'], losses[0], rtol=1e-5)
  assert all(abs(other / losses[0] - 1) > 5e-5 for other in losses[1:])


def test_predictions_of_a_checkpoint_are_those_of_its_average(run):
  config, experiment, last, folder = run
  batch = {**experiment.train.examples.rows(np.arange(6)), 'index': np.arange(6)}
  abstract = to_save(*jax.eval_shape(lambda: first_state(experiment.task, batch, jax.random.key(0))))
  step, tree = checkpoint.Checkpoints(folder / 'checkpoints').restore({**abstract, 'lines': np.int32(0)})
  assert step == config.steps
  jax.tree.map(np.testing.assert_array_equal, tree['state'], last.state)
  predicted, average = experiment.predict(jax.device_put(tree['state']), batch), last.state.ema
  expected = outputs(average['params'], average['batch_stats'], batch['inputs'])
  np.testing.assert_allclose(predicted, expected, rtol=1e-4, atol=1e-5)
  assert np.abs(predicted - outputs(last.state.params, average['batch_stats'], batch['inputs'])).max() > 1e-3
