"""The benchmark of the loop: its sums, and that it runs the loop with a bar."""

import dataclasses
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np

from launch import benchmark, benchmark_peer, children, peers, turns
from launch.flags import load_config

CONFIG = Path(__file__).parents[1] / 'configs' / 'classifier.py'


def test_a_report_is_of_medians_and_pairs():
  turned = [(1.1, 1.0), (3.0, 2.0), (1.2, 1.0)]
  lines = benchmark.report(turned, steps=100, batch_size=6).splitlines()
  assert lines == [
    'loop 500 examples/s, bare 600 examples/s, 100 steps a turn, 3 turns',
    'ratio of times: median 1.200, from 1.100 to 1.500',
    'a step: 2000 microseconds more',
  ]


def test_the_loop_is_measured_with_its_bar_on(monkeypatch, capsys):
  terminals = []

  class Terminal(turns.Terminal):
    def __init__(self):
      super().__init__()
      terminals.append(self)

  monkeypatch.setattr(turns, 'Terminal', Terminal)
  config = dataclasses.replace(
    load_config(str(CONFIG)), checkpoint_every=500
  )  # as is usual: saves take longer than steps
  for name, value in (('CONFIG', config), ('ROUNDS', 2), ('SECONDS', 0.1)):
    monkeypatch.setattr(benchmark, name, SimpleNamespace(value=value))
  benchmark.main()
  assert capsys.readouterr().out.splitlines()[1].startswith('ratio of times: median ')
  (terminal,) = terminals
  assert 'training  |' in terminal.getvalue() and '/1000000000' in terminal.getvalue()


def test_a_peer_needs_no_config():
  """And where torch is missing, that is told."""
  run = subprocess.run(
    [sys.executable, '-c', WITHOUT_TORCH], cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False
  )
  assert run.returncode == 2 and run.stderr.strip().splitlines()[-1] == (
    "error: --peer=torch: torch is not installed; pip install -e '.[peers]'"
  )


WITHOUT_TORCH = """
import functools, importlib.util, sys
sys.argv = ['benchmark', '--peer=torch', '--cpu_levers=false', '--compilation_cache=']
find, importlib.util.find_spec = importlib.util.find_spec, lambda name: None if name == 'torch' else find(name)
from launch import app, benchmark
app.run(benchmark.main, functools.partial(benchmark.parse, unless='peer'))
"""


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
