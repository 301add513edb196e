"""What a sampler gets of a workdir alone: the variables that are evaluated, and the texts that a run keeps."""

import dataclasses
from pathlib import Path

import jax
import numpy as np
import pytest

from launch.flags import load_config
from research.errors import CheckpointError
from research.parallel.mesh import MeshShape
from research.tasks.base import evaluation_variables
from research.train.loop import train
from research.train.restore import restore_state, restore_variables

CONFIGS = Path(__file__).parents[1] / 'configs'


@pytest.mark.parametrize(('name', 'ema'), [('regularized', 0.9), ('stream', 0.0), ('series', 0.9), ('agent', 0.0)])
def test_variables_are_those_that_are_evaluated(name, ema, tmp_path):
  config = dataclasses.replace(load_config(f'{CONFIGS / name}.py'), steps=6, ema_decay=ema, eval_every=0)
  with pytest.raises(CheckpointError, match='has no checkpoint yet'):
    restore_variables(tmp_path)
  experiment = dataclasses.replace(config.build(), final_evaluators={}, files={'tokens.txt': 'a b'})
  list(train(config, tmp_path, experiment=experiment))
  step, variables = restore_variables(tmp_path)
  expected = jax.tree.map(np.asarray, evaluation_variables(restore_state(experiment, config, tmp_path)[1]))
  assert step == 6 and (tmp_path / 'tokens.txt').read_text() == 'a b'
  for mesh, devices in ((MeshShape(2), 2), (MeshShape(16), 8)):  # all that there are, where they are too few
    _, state = restore_state(experiment, dataclasses.replace(config, mesh=mesh), tmp_path)
    assert len(state.step.sharding.device_set) == devices
  by_path = lambda tree: {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree.leaves_with_path(tree)}  # noqa: E731
  found, wanted = by_path(variables['params']), by_path(expected['params'])
  assert found.keys() == wanted.keys()
  for path, leaf in wanted.items():
    np.testing.assert_array_equal(found[path], leaf, err_msg=path)
