"""Yardsticks by formula, and figures that show what they say: read back from their axes."""

import numpy as np
import pytest

from research.errors import ConfigError
from research.evaluate import forecasts

RANDOM = np.random.default_rng(0)
INPUTS, TARGETS = RANDOM.normal(size=(6, 12, 2)), RANDOM.normal(size=(6, 7, 2))
OUTPUTS = np.sort(RANDOM.normal(size=(6, 7, 2, 4)))
ROWS = {'inputs': INPUTS, 'targets': TARGETS}


def test_seasonal_naive_says_what_was_a_season_before():
  naive = forecasts.seasonal_naive(INPUTS, 5, 7)
  series = np.concatenate([INPUTS, naive], axis=1)
  for step in range(12, 19):
    np.testing.assert_array_equal(series[:, step], series[:, step - 5])
  assert dict(forecasts.naive_errors(5)(OUTPUTS, ROWS)) == pytest.approx(
    {
      'seasonal_naive_mse': ((naive - TARGETS) ** 2).mean(),
      'seasonal_naive_mae': np.abs(naive - TARGETS).mean(),
    }
  )


def test_what_the_mask_of_the_data_leaves_out_is_no_error():
  mask = RANDOM.integers(0, 2, TARGETS.shape)
  rows = {**ROWS, 'targets': np.where(mask, TARGETS, np.nan), 'mask': mask}
  errors = (forecasts.seasonal_naive(INPUTS, 5, 7) - TARGETS)[mask > 0]
  assert dict(forecasts.naive_errors(5)(OUTPUTS, rows))['seasonal_naive_mse'] == pytest.approx((errors**2).mean())
  ((_, figure),) = forecasts.error_over_horizon(5)(OUTPUTS, rows)
  error = (forecasts.seasonal_naive(INPUTS, 5, 7) - TARGETS)[:, 0][mask[:, 0] > 0]
  np.testing.assert_allclose(figure.axes[0].lines[0].get_ydata()[0], (error**2).mean())


def test_a_periodic_series_is_forecast_without_error():
  wave = np.tile(RANDOM.normal(size=5), 8)
  windows = np.stack([wave[start : start + 19] for start in range(9)])[..., None]
  rows = {'inputs': windows[:, :12], 'targets': windows[:, 12:]}
  assert dict(forecasts.naive_errors(5)(np.zeros((9, 7, 1, 1)), rows))['seasonal_naive_mse'] == 0


@pytest.mark.parametrize('season_length', [0, 13])
def test_a_season_that_the_past_does_not_hold_is_refused(season_length):
  with pytest.raises(ConfigError, match=f'season_length={season_length}: must be from 1 to the 12 steps'):
    forecasts.seasonal_naive(INPUTS, season_length, 7)


def test_error_over_horizon_is_that_of_every_step():
  ((name, figure),) = forecasts.error_over_horizon(5)(OUTPUTS, ROWS)
  naive, model = figure.axes[0].lines
  np.testing.assert_array_equal(model.get_xdata(), np.arange(1, 8))
  np.testing.assert_allclose(model.get_ydata(), ((OUTPUTS[..., 0] - TARGETS) ** 2).mean((0, 2)))
  np.testing.assert_allclose(naive.get_ydata().mean(), ((forecasts.seasonal_naive(INPUTS, 5, 7) - TARGETS) ** 2).mean())
  assert name == 'error_over_horizon' and figure.axes[0].get_ylim()[0] == 0


def test_forecasts_show_past_future_point_and_interval_of_every_variable():
  ((_, figure),) = forecasts.forecasts(('a', 'b'), 2)(OUTPUTS, ROWS)
  assert [axis.get_title() for axis in figure.axes] == ['a', 'b', 'a', 'b']
  axis = figure.axes[3]  # of the second example and variable
  example = [number for number in range(6) if np.array_equal(axis.lines[2].get_ydata(), OUTPUTS[number, :, 1, 0])]
  assert example == [3] and np.array_equal(figure.axes[0].lines[2].get_ydata(), OUTPUTS[2, :, 0, 0]), 'evenly spread'
  np.testing.assert_array_equal(axis.lines[0].get_ydata(), INPUTS[example[0], :, 1])
  np.testing.assert_array_equal(axis.lines[1].get_ydata(), TARGETS[example[0], :, 1])
  assert axis.lines[0].get_xdata()[-1] == 0 and axis.lines[1].get_xdata()[0] == 1
  interval = axis.collections[0].get_paths()[0].vertices[:, 1]
  assert interval.min() == OUTPUTS[example[0], :, 1, 1].min() and interval.max() == OUTPUTS[example[0], :, 1, 3].max()


def test_without_quantiles_or_a_future_there_is_less_to_draw():
  (axis,) = forecasts.draw(('a',), INPUTS[:1, :, :1], OUTPUTS[:1, :, :1, :1]).axes
  assert len(axis.lines) == 2 and not axis.collections
  for numbers, intervals in ((2, 0), (3, 1)):  # an interval has two ends
    (axis,) = forecasts.draw(('a',), INPUTS[:1, :, :1], OUTPUTS[:1, :4, :1, :numbers]).axes
    assert len(axis.collections) == intervals
  np.testing.assert_array_equal(axis.lines[0].get_ydata(), INPUTS[0, -8:, 0], 'twice the horizon of the past')
  np.testing.assert_array_equal(axis.lines[0].get_xdata(), np.arange(-7, 1))
  np.testing.assert_array_equal(axis.lines[1].get_xdata(), np.arange(1, 5))
