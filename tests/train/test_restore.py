"""What is read from a workdir alone: the variables that are evaluated, and the network that they belong to."""

import dataclasses
import hashlib
import json
from pathlib import Path

import jax
import numpy as np
import pytest
from runs import drain, make

from launch.flags import load_config
from research.errors import CheckpointError, ConfigError, WorkdirError
from research.parallel.mesh import MeshShape
from research.tasks.base import evaluation_variables
from research.train.description import as_json, load_description
from research.train.loop import train
from research.train.modules import import_file
from research.train.restore import restore_network, restore_state, restore_variables

CONFIGS = Path(__file__).parents[1] / 'configs'


@pytest.mark.parametrize('value', [Path('scale'), {'scale': [object()]}])
def test_fitted_that_json_cannot_hold_is_named(value):
  with pytest.raises(ConfigError, match=r"^fitted\['scaler'\]: is a .*; must be made of strings, numbers"):
    as_json({'names': ('a',), 'scaler': value})


NAMES = ('classifier', 'regularized', 'stream', 'transcriber', 'translator', 'series', 'forecaster', 'stored', 'ring')


@pytest.mark.parametrize('name', NAMES)
def test_the_network_is_rebuilt_without_the_data(name, tmp_path, monkeypatch):
  """From config.json, network.json and a checkpoint; from raw inputs it computes what the run's reports read."""
  config = make(name, steps=2, eval_every=0)
  if name == 'stored':
    config.folder = str(tmp_path)
    import_file(CONFIGS / 'stored.py').store(tmp_path)
  experiment = dataclasses.replace(config.build(), evaluators={}, final_evaluators={})
  state = drain(config, tmp_path / 'run', experiment)[-1].state
  rows = {**experiment.train.examples.rows(np.arange(3)), 'latent': np.ones((3, 2), np.float32)}
  if experiment.predict:
    expected = jax.device_get(jax.jit(experiment.predict)(state, rows))
  else:
    expected = jax.device_get(jax.jit(experiment.network)(evaluation_variables(state), rows))
  monkeypatch.setattr(type(config), 'build', None)
  network, inputs = restore_network(tmp_path / 'run')
  batch = {name: rows[name] for name in inputs}
  assert {name: (leaf.shape, leaf.dtype) for name, leaf in inputs.items()} == {
    name: (array.shape[1:], array.dtype) for name, array in batch.items()
  }
  assert inputs and 'targets' not in inputs
  outputs = jax.jit(network)(restore_variables(tmp_path / 'run')[1], batch)
  jax.tree.map(lambda found, wanted: np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6), outputs, expected)


def test_what_was_fitted_is_checked_when_it_is_read(tmp_path, told, fault):
  config = make('forecaster', steps=2, eval_every=0, mesh=MeshShape(1))
  experiment = dataclasses.replace(config.build(), evaluators={}, final_evaluators={})
  drain(config, tmp_path, experiment)
  path, fitted = tmp_path / 'network.json', load_description(tmp_path).fitted
  assert fitted == experiment.fitted and fitted['columns'] == ['one', 'other'] and len(fitted['scale']['mean']) == 2
  recorded = json.loads((tmp_path / 'environment.json').read_text())[-1]['network.json']
  text = path.read_text()
  assert recorded == hashlib.sha256(text.encode()).hexdigest()
  other = dataclasses.replace(experiment, fitted={'columns': ['one']})
  line, code = told(
    lambda: drain(dataclasses.replace(config, steps=3), tmp_path, dataclasses.replace(other, config=None))
  )
  assert path.read_text() == text
  fault('something else is fitted when a run goes on', line, code, 'all; network.json untouched')
  path.write_text(text.replace('one', 'two'))
  line, code = told(lambda: restore_network(tmp_path))
  fault('network.json was changed', line, code, 'all; untouched')
  path.unlink()
  with pytest.raises(WorkdirError, match=r'network.json.*a run writes before its first step'):
    load_description(tmp_path)
  drain(dataclasses.replace(config, steps=3), tmp_path)
  assert path.read_text() == text, 'the same training data are fitted again'


@pytest.mark.parametrize(('name', 'ema'), [('regularized', 0.9), ('stream', 0.0), ('series', 0.9), ('agent', 0.0)])
def test_variables_are_those_that_are_evaluated(name, ema, tmp_path):
  config = dataclasses.replace(load_config(f'{CONFIGS / name}.py'), steps=6, ema_decay=ema, eval_every=0)
  with pytest.raises(CheckpointError, match='has no checkpoint yet'):
    restore_variables(tmp_path)
  experiment = dataclasses.replace(config.build(), final_evaluators={})
  list(train(config, tmp_path, experiment=experiment))
  step, variables = restore_variables(tmp_path)
  expected = jax.tree.map(np.asarray, evaluation_variables(restore_state(experiment, config, tmp_path)[1]))
  assert step == 6
  for mesh, devices in ((MeshShape(2), 2), (MeshShape(16), 8)):  # all that there are, where they are too few
    _, state = restore_state(experiment, dataclasses.replace(config, mesh=mesh), tmp_path)
    assert len(state.step.sharding.device_set) == devices
  by_path = lambda tree: {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree.leaves_with_path(tree)}  # noqa: E731
  found, wanted = by_path(variables['params']), by_path(expected['params'])
  assert found.keys() == wanted.keys()
  for path, leaf in wanted.items():
    np.testing.assert_array_equal(found[path], leaf, err_msg=path)
