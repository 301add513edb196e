"""Where the trials of a sweep run."""

import jax
import pytest
from absl.testing import flagsaver

from launch import cluster
from research.errors import ConfigError
from research.sweep.runners import Job, device_shares, run_array
from research.train.signals import Stop

CONFIG = 'tests/configs/classifier.py'
CACHE = f'--compilation_cache={jax.config.jax_compilation_cache_dir}-launched'


def test_devices_are_dealt_out():
  name = 'CUDA_VISIBLE_DEVICES'
  assert device_shares('', 3) == [{}] * 3
  assert device_shares('0,1,2,3', 1) == [{name: '0,1,2,3'}]
  assert device_shares('0,1,2', 2) == [{name: '0,2'}, {name: '1'}]
  assert device_shares('4,5', 3) == [{name: '4'}, {name: '5'}, {name: '4'}]


def test_an_array_of_jobs(tmp_path):
  words = [f'--config={CONFIG}', '--config.steps=5', '--config.eval_every=0', CACHE]
  jobs = [Job('0', tmp_path / '0', words), Job('1', tmp_path / '1', [*words, '--config.batch_size=0'])]
  with flagsaver.flagsaver(cluster='local', time='5', logs=str(tmp_path / 'jobs'), gpus_per_node=8), Stop() as stop:
    assert run_array(jobs, cluster.executor(whole=True), stop) == [0, 2]
  assert (tmp_path / '0' / 'result.json').exists()
  with flagsaver.flagsaver(nodes=2), pytest.raises(ConfigError, match='--nodes=2: each job of this command is one'):
    cluster.executor(whole=True)
