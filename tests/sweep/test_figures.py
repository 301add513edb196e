"""The picture of a sweep, read back from its axes."""

import math

import numpy as np
from matplotlib.colors import to_hex

from research.evaluate.figures import ACCENT
from research.sweep import figures


def test_numbers_lie_by_size_or_by_logarithm():
  np.testing.assert_allclose(figures.scale_of([1, 4, 2]).places, [0, 1, 1 / 3])
  scale = figures.scale_of([1e-4, 1e-2, 1e-3])
  np.testing.assert_allclose(scale.places, [0, 1, 0.5])
  assert [text for _, text in scale.ticks] == ['0.0001', '0.001', '0.01']
  np.testing.assert_allclose(figures.scale_of([0.0, 100.0, 50.0]).places, [0, 1, 0.5])  # zero has no logarithm
  assert list(figures.scale_of([3, 3]).places) == list(figures.scale_of([0, 0]).places) == [0.5, 0.5]
  np.testing.assert_allclose(figures.scale_of([1, 20, math.sqrt(20)]).places, [0, 1, 0.5])  # from a ratio of 20 on
  np.testing.assert_allclose(figures.scale_of([1, 19, 10]).places, [0, 1, 0.5])


def test_few_numbers_far_apart_are_their_own_ticks():
  six = [0.0, 0.21, 0.4, 0.63, 0.8, 1.0]
  assert [text for _, text in figures.scale_of(six).ticks] == ['0', '0.21', '0.4', '0.63', '0.8', '1']
  for numbers in ([*six, 0.11], [0.0, 0.06, 1.0]):  # too many; too near
    assert [text for _, text in figures.scale_of(numbers).ticks] == ['0', '0.2', '0.4', '0.6', '0.8', '1']


def test_other_values_lie_in_order_of_appearance():
  scale = figures.scale_of(['sgd', 'adam', 'sgd', (1, 2)])
  np.testing.assert_allclose(scale.places, [1 / 6, 3 / 6, 1 / 6, 5 / 6])
  assert [text for _, text in scale.ticks] == ['sgd', 'adam', '(1, 2)']
  assert [text for _, text in figures.scale_of([True, False]).ticks] == ['True', 'False']


def test_many_numbers_have_few_round_ticks_at_their_places():
  for numbers, ticks in (
    (np.linspace(0, 0.5, 40), '0 0.1 0.2 0.3 0.4 0.5'),
    (np.geomspace(1e-4, 1e-1, 40), '0.0001 0.0003 0.001 0.003 0.01 0.03 0.1'),
  ):
    scale = figures.scale_of(numbers.tolist())
    assert [text for _, text in scale.ticks] == ticks.split()
    for place, text in scale.ticks:
      assert np.isclose(np.interp(float(text), numbers, scale.places), place, atol=0.02)


def test_points_over_one_field():
  figure = figures.trials({'lr': [1e-2, 1e-3, 1e-4]}, [0.9, 0.8, math.nan], 'score')
  (axis,) = figure.axes
  (curve,) = axis.lines
  np.testing.assert_allclose(curve.get_xydata(), [[0.5, 0.8], [1, 0.9]])
  points, best, failed = axis.collections
  np.testing.assert_allclose(best.get_offsets(), [[1, 0.9]])
  assert len(points.get_offsets()) == 2 and list(failed.get_offsets()[:, 0]) == [0]
  assert (axis.get_xlabel(), axis.get_ylabel()) == ('lr', 'score')


def test_values_tried_more_than_once_are_no_curve():
  assert not figures.trials({'lr': [1e-2, 1e-2, 1e-3]}, [0.9, 0.8, 0.7], 'score').axes[0].lines
  assert not figures.trials({'name': ['adam', 'sgd']}, [0.9, 0.8], 'score').axes[0].lines


def test_parallel_coordinates_pass_through_every_value():
  fields = {'lr': [1e-2, 1e-3, 1e-4], 'width': [8, 32, 16]}
  figure = figures.trials(fields, [0.9, 0.7, math.nan], 'score')
  failed, second, best = figure.axes[0].lines[:3]
  ends = {0: [1, 0, 1], 1: [0.5, 1, 0]}  # places of lr, width and score
  for line, rank in ((best, 0), (second, 1)):
    x, y = line.get_data()
    np.testing.assert_allclose(y[np.isin(x, [0, 1, 2])], ends[rank], atol=1e-12)
  assert failed.get_xdata()[-1] == 1  # where it ends, there is no score
  assert to_hex(best.get_color()) == ACCENT and best.get_linewidth() > second.get_linewidth()
  assert {'lr', 'width', 'score'} <= {text.get_text() for text in figure.axes[0].texts}


def test_a_curve_is_level_at_its_places():
  x, y = figures.smooth([0.0, 1.0, 0.5])
  quarter = 3 / 4**2 - 2 / 4**3
  np.testing.assert_allclose(np.interp([0, 0.25, 0.5, 1, 1.25, 2], x, y), [0, quarter, 0.5, 1, 1 - quarter / 2, 0.5])
  for places, ends in (([0.3], [0.3]), ([0.3, math.nan, 0.1], [0.3])):
    np.testing.assert_allclose(figures.smooth(places)[1], ends)
