"""Recurrent layers beside those of another library."""

from types import SimpleNamespace

import jax
import numpy as np

from launch import benchmark_peer, children, peers


def test_a_peer_is_measured_in_turn(monkeypatch):
  seconds = iter(['0.010', '0.010', '0.020', '0.030', '0.015', '0.020', '0.012', '0.010', '0.016'])
  asked = []

  def run(command, env, **options):
    asked.append((command[3], env['JAX_NUM_CPU_DEVICES']))
    return SimpleNamespace(stdout=next(seconds), returncode=0)

  monkeypatch.setattr(children.subprocess, 'run', run)
  lines = benchmark_peer._compared('gru', 3).splitlines()
  assert asked == [('--library=strata', '1'), ('--library=strata', '2'), ('--library=torch', '1')] * 3
  assert lines == [
    'gru on one device: 12.0 ms a step, torch 20.0 ms; ratio of times: median 0.75, from 0.50 to 1.50',
    'gru on two devices: 10.0 ms a step, torch 20.0 ms; ratio of times: median 0.62, from 0.50 to 0.75',
  ]


def test_steps_of_the_peer_benchmark_train(monkeypatch):
  monkeypatch.setattr(peers, 'UNITS', 4)
  run = peers.strata_steps('gru')
  before, after = jax.device_get(run(0)), run(2)
  jax.tree.map(lambda one, other: np.testing.assert_allclose(np.abs(one - other).max(), 2e-3, rtol=0.1), before, after)
  assert 0 < benchmark_peer.seconds_of(peers.strata_steps('gru'), steps=2, blocks=1) < 60
