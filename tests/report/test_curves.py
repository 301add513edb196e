"""Learning curves, read back from their axes."""

import pytest

from research.report.curves import learning_curves


def test_learning_curves_hold_both_parts():
  records = [
    {'step': 0, 'state_sha256': 'abc'},
    {'step': 10, 'train/loss': 2.0, 'train/accuracy': 0.1, 'seconds': 1.0},
    {'step': 20, 'train/loss': 1.0, 'train/accuracy': 0.5},
    {'step': 20, 'validation/loss': 1.5, 'validation/accuracy': 0.4, 'validation/macro_f1': 0.3},
  ]
  axes = learning_curves(records).axes
  assert [axis.get_ylabel() for axis in axes] == ['loss', 'accuracy']
  train, validation = axes[0].lines
  assert (list(train.get_xdata()), list(train.get_ydata())) == ([10, 20], [2.0, 1.0])
  assert (list(validation.get_xdata()), list(validation.get_ydata())) == ([20], [1.5])


def test_a_metric_under_two_names_has_one_panel_and_the_learning_rate_comes_last():
  names = ('train/learning_rate', 'train/loss', 'train/mse', 'train/mae')
  records = [dict(zip(names, (0.1, step, step, 2), strict=True)) | {'step': step} for step in (1, 2)]
  assert [axis.get_ylabel() for axis in learning_curves(records).axes] == ['loss = mse', 'mae', 'learning rate']


@pytest.mark.parametrize(('values', 'scale'), [((1, 21), 'log'), ((1, 20), 'linear'), ((0, 21), 'linear')])
def test_a_curve_over_more_than_a_decade_is_on_a_logarithmic_scale(values, scale):
  records = [{'step': step, 'train/loss': value} for step, value in enumerate(values)]
  assert learning_curves(records).axes[0].get_yscale() == scale
