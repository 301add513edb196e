"""The benchmark of the loop: its sums, and that it runs the loop with a bar."""

import dataclasses
from pathlib import Path
from types import SimpleNamespace

from launch import benchmark, turns
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
