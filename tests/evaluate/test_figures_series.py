"""Pictures of series, read back from their axes."""

import numpy as np
import pytest

from research.evaluate import figures_series

ROWS = {
  'inputs': np.array([[0, 0, 0], [2, 4, 6], [4, 4, 4], [1, 2, 3]], np.float32)[..., None],
  'targets': np.array([0, 0, 1, 1]),
}
LOGITS = np.array([[9, 0], [0, 2], [5, 0], [0, 1]])  # right, wrong, wrong and surer, right


def test_mistakes_begin_with_the_surest_and_lie_over_the_means():
  ((name, figure),) = figures_series.mistakes(('a', 'b'))(LOGITS, ROWS)
  shown = [axis for axis in figure.axes if axis.lines]
  assert name == 'mistakes' and [axis.get_title()[0] for axis in shown] == ['a', 'b']
  guessed, true, series = ([list(line.get_ydata()) for line in axis.lines] for axis in shown[:1]).__next__()
  assert (guessed, true, series) == ([1, 2, 3], [2.5, 3, 3.5], [4, 4, 4])


def test_what_follows_the_end_is_not_drawn():
  ((_, figure),) = figures_series.mistakes(('a', 'b'))(LOGITS, {**ROWS, 'lengths': np.array([3, 2, 1, 3])})
  surest = figure.axes[0].lines[-1].get_ydata()
  np.testing.assert_array_equal(surest, [4, np.nan, np.nan])
  np.testing.assert_array_equal(figure.axes[0].lines[1].get_ydata(), [2.5, 2, 3], 'a mean of those that go on')


def test_a_class_without_an_example_and_no_mistake():
  rows = {'inputs': np.ones((1, 3, 1)), 'targets': np.array([1])}
  assert not list(figures_series.mistakes(('a', 'b'))(np.array([[0, 1]]), rows))
  means = figures_series.class_means(figures_series.class_sums(rows, 2))
  assert np.isnan(means[0]).all() and (means[1] == 1).all()


@pytest.mark.parametrize(('wrong', 'most', 'shown'), [(5, 12, 5), (5, 3, 3)])
def test_mistakes_leave_no_axes_empty(wrong, most, shown):
  rows = {'targets': np.ones(wrong + 1, int), 'inputs': np.zeros((wrong + 1, 3, 1))}
  logits = np.eye(2)[np.array([1] + [0] * wrong)]
  ((_, figure),) = figures_series.mistakes(('a', 'b'), most)(logits, rows)
  assert [len(axis.lines) for axis in figure.axes] == [3] * shown
  assert len(figure.legends[0].get_texts()) == 3
