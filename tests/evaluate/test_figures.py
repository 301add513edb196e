"""Figures show what they say: read back from their axes, not from pixels."""

import numpy as np
import pytest

from research.evaluate import figures


def test_a_figure_is_as_large_as_its_axes_and_its_title():
  figure, axes = figures.make_figure(3, 2, (2, 5))
  np.testing.assert_array_equal(figure.get_size_inches(), [6, 10 + figures.TITLE])
  assert figure.axes == axes and len(axes) == 6
  assert figures.make_figure(1, 1, (1, 1))[0].get_size_inches()[0] == figures.NARROW


@pytest.mark.parametrize(('count', 'columns', 'rows'), [(1, 1, 1), (6, 6, 1), (7, 4, 2), (9, 5, 2), (13, 5, 3)])
def test_a_grid_has_full_rows(count, columns, rows):
  figure, axes = figures.make_grid(count, 6, (2, 5))
  assert figure.axes == axes and len(axes) == count
  np.testing.assert_array_equal(figure.get_size_inches(), [max(2 * columns, figures.NARROW), 5 * rows + figures.TITLE])


def test_confusion_shows_counts_by_true_class():
  logits, targets = np.eye(3)[[0, 1, 1, 2]], np.array([0, 1, 2, 2])
  ((name, figure),) = figures.confusion(('a', 'b', 'c'))(logits, {'targets': targets})
  (axis,) = figure.axes
  counts = {(text.get_position()[1], text.get_position()[0]): text.get_text() for text in axis.texts}
  assert name == 'confusion_matrix' and counts == {(0, 0): '1', (1, 1): '1', (2, 1): '1', (2, 2): '1'}
  assert {text.get_color() for text in axis.texts} == {'white'}, 'legible on what is dark'
  np.testing.assert_allclose(axis.images[0].get_array()[2], [0, 0.5**0.4, 0.5**0.4])
  masked = {'targets': np.array([[0, 1], [-100, 2]]), 'mask': np.array([[1, 1], [0, 1]])}
  ((_, figure),) = figures.confusion(('a', 'b', 'c'))(logits.reshape(2, 2, 3), masked)
  assert {text.get_position() for text in figure.axes[0].texts} == {(0, 0), (1, 1), (2, 2)}, 'a masked position'
  ((_, figure),) = figures.confusion(('a', 'b', 'c'))(logits[:3], {'targets': np.array([0, 1, 1])})
  assert not np.asarray(figure.axes[0].images[0].get_array())[2].any(), 'a class without an example'


def test_confusion_of_many_classes_stays_small():
  """Neither counts nor more names than there is room for, and no pixel without its class."""
  numbers = np.random.default_rng(0).integers(0, 1_000, (2, 5_000))
  logits = np.zeros((5_000, 1_000), np.float32)
  logits[np.arange(5_000), numbers[0]] = 1
  ((_, figure),) = figures.confusion([f'class {number}' for number in range(1_000)])(logits, {'targets': numbers[1]})
  axis, confusions = figure.axes[:2]
  names = [label.get_text() for label in axis.get_yticklabels()]
  assert not axis.texts and 50 <= len(names) <= 75 and names[:2] == ['class 0', 'class 14']
  assert len(confusions.patches) == 25 and confusions.get_yticklabels()[0].get_text().startswith('class ')
  assert axis.images[0].get_array().shape == (1_000, 1_000) and max(figure.get_size_inches()) < 20


def test_mistakes_begin_with_the_surest():
  logits = np.array([[9, 0, 0], [0, 2, 0], [0, 0, 5], [0, 3, 0]])  # right, wrong, wrong and surer, right
  images = np.arange(4)[:, None, None, None] * np.ones((4, 2, 2, 1))
  rows = {'targets': np.array([0, 0, 0, 1]), 'inputs': images}
  ((_, figure),) = figures.mistakes(('a', 'b', 'c'))(logits, rows)
  shown = [axis for axis in figure.axes if axis.images]
  assert [axis.images[0].get_array()[0, 0] for axis in shown] == [2, 1]
  assert [axis.get_title()[0] for axis in shown] == ['c', 'b'] and '99' in shown[0].get_title()


def test_mistakes_rank_by_more_than_a_saturated_probability():
  logits = np.array([[50.0, 0, 0], [90, 0, 0], [70, 0, 0]], np.float32)
  rows = {'targets': np.array([1, 1, 1]), 'inputs': np.arange(3)[:, None, None] * np.ones((1, 2, 2))}
  ((_, figure),) = figures.mistakes(('a', 'b', 'c'), 2)(logits, rows)
  assert [axis.images[0].get_array()[0, 0] for axis in figure.axes if axis.images] == [1, 2]


@pytest.mark.parametrize(('wrong', 'most', 'shown'), [(7, 18, 7), (7, 4, 4), (0, 18, 0)])
def test_mistakes_leave_no_axes_empty(wrong, most, shown):
  rows = {'targets': np.ones(wrong + 1, int), 'inputs': np.zeros((wrong + 1, 2, 2, 1))}
  logits = np.eye(2)[np.array([1] + [0] * wrong)]
  drawn = [figure for _, figure in figures.mistakes(('a', 'b'), most)(logits, rows)]
  assert [len(axis.images) for figure in drawn for axis in figure.axes] == [1] * shown


def test_predictions_over_targets():
  outputs, targets = np.array([[1.0], [2.0], [4.0]]), np.array([1.0, 3.0, 3.5])
  ((_, figure),) = figures.predictions('mg')(outputs, {'targets': targets})
  (axis,) = figure.axes
  np.testing.assert_array_equal(axis.collections[0].get_offsets(), np.stack([targets, outputs[:, 0]], 1))
  assert axis.get_xlabel() == 'target (mg)'
  np.testing.assert_array_equal(axis.lines[0].get_xydata(), [[1, 1], [4, 4]])
  ((_, figure),) = figures.predictions()(targets[:, None], {'targets': outputs})
  np.testing.assert_array_equal(figure.axes[0].lines[0].get_xydata(), [[1, 1], [4, 4]])
