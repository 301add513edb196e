"""Curves of the time of a step: their sizes, their dashed lines and their picture."""

import pytest

from benchmarks import limits, scaling
from benchmarks.families import Family, images

ROWS = [
  {'against': 'batch', 'family': 'mlp', 'size': size, 'seconds': seconds, 'flops': 100 * size}
  for size, seconds in ((8, 0.004), (16, 0.005), (32, 0.008))
]


def test_lines_are_in_proportion_to_the_operations():
  assert scaling.expected(ROWS) == [0.002, 0.004, 0.008]
  assert scaling.table(ROWS).splitlines()[-1].replace(' ', '') == '|batch|mlp|8/16/32|4.0/5.0/8.0|2.00/1.25/1.00|'


def test_the_picture_has_points_and_lines_of_every_curve():
  figure = scaling.picture([*ROWS, *({**row, 'against': 'depth', 'family': 'gpt'} for row in ROWS)])
  batch, _, depth, _ = figure.axes
  for axis in (batch, depth):
    points, line = axis.lines
    assert points.get_marker() == 'o' and list(points.get_ydata()) == [4, 5, 8]
    assert line.get_linestyle() == '--' and list(line.get_ydata()) == pytest.approx([2, 4, 8])


@pytest.mark.parametrize(
  ('against', 'family', 'exactly'),
  [('batch', 'mlp', True), ('batch', 'cnn', True), ('length', 'lstm', True), ('length', 'gpt', False)],
)
def test_operations_follow_the_size(against, family, exactly):
  small, large = (limits.work(scaling.Point(against, family, size).build())['flops'] for size in (8, 16))
  assert large == 2 * small if exactly else 2 * small < large < 2.1 * small


def test_every_point_is_measured_on_its_devices(in_process, monkeypatch):
  devices = []
  monkeypatch.setattr(scaling.jax.config, 'update', lambda name, value: devices.append((name, value)))
  tiny = Family('mlp', '', images(8, 6, num_classes=3), lambda library: library.mlp(6, (5,), 3))
  monkeypatch.setattr(scaling, 'FAMILIES', {'mlp': lambda **sizes: tiny})
  in_process(scaling)
  points = [scaling.Point('devices', 'mlp', 2), scaling.Point('depth', 'mlp', 1), scaling.Point('devices', 'mlp', 1)]
  rows = scaling.measured(points, rounds=2, seconds=0.01)
  assert devices == [('jax_num_cpu_devices', 1), ('jax_num_cpu_devices', 2)]
  assert [(row['against'], row['size']) for row in rows] == [('devices', 2), ('depth', 1), ('devices', 1)]
  assert all(0 < row['seconds'] < 10 and row['flops'] == limits.work(tiny)['flops'] for row in rows)
