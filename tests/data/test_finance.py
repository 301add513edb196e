"""Days of an index: returns and ranges by formula, and features that know nothing of the days after."""

import numpy as np
import pandas as pd
import pytest
from arch.data import sp500 as package

from research.data import finance
from research.errors import ConfigError

FOLD = 3


def test_returns_and_ranges_are_the_formulas():
  frame, days = package.load(), finance.sp500_days()
  np.testing.assert_allclose(days.returns[9], 100 * np.log(frame.Close.iloc[10] / frame.Close.iloc[9]))
  high, low = (max(frame.High.iloc[10], frame.Close.iloc[9]), min(frame.Low.iloc[10], frame.Close.iloc[9]))
  np.testing.assert_allclose(days.ranges[9], 100 * np.log(high / low))
  assert days.dates[9] == frame.index[10] and len(days.returns) == 5030
  assert (days.ranges >= np.abs(days.returns) - 1e-9).all()


def test_features_are_the_formulas():
  days = finance.sp500_days()
  names, values = finance.features(days, ranges=True)
  day = 1000
  row = dict(zip(names, values[day - finance.MONTH + 1], strict=True))
  assert row['return'] == days.returns[day] and days.returns[day] < 0 == values[5, 1] < values[5, 0]
  np.testing.assert_array_equal(values[:, 1], np.minimum(values[:, 0], 0))
  assert len(values) == len(days.returns) - 21 and len(names) == 7
  for name, source, steps in (
    ('return_5', days.returns, 5),
    ('return_22', days.returns, 22),
    ('range_1', days.ranges, 1),
    ('range_5', days.ranges, 5),
    ('range_22', days.ranges, 22),
  ):
    mean = np.mean(source[day - steps + 1 : day + 1] ** 2)
    np.testing.assert_allclose(row[name], np.log(mean + 1e-4), rtol=1e-9)
  assert not any(name.startswith('range') for name in finance.features(days, ranges=False)[0])


@pytest.mark.parametrize('fold', [0, 7])
def test_a_fold_tests_on_every_day_of_its_year(fold):
  days, data = finance.sp500_days(), finance.sp500(fold)
  years = days.dates.astype('datetime64[Y]').astype(int) + 1970
  for part, year in ((data.validation, 2010 + fold), (data.test, 2011 + fold)):
    squares = part.rows(np.arange(len(part)))['targets'].ravel()
    np.testing.assert_allclose(squares, days.returns[years == year] ** 2, rtol=1e-6)
  trained = data.train.rows(np.array([len(data.train) - 1]))['targets'].ravel()
  np.testing.assert_allclose(trained, days.returns[years < 2010 + fold][-1] ** 2, rtol=1e-6)


def test_no_past_input_target_or_scale_knows_the_future(monkeypatch):
  """Other prices from the middle of the tested year on: nothing up to that day changes by a bit."""
  before, load = finance.sp500(FOLD), package.load
  half = len(before.test) // 2
  _, first, _ = finance.year_ends(finance.sp500_days().dates, FOLD, 8)

  def changed() -> pd.DataFrame:
    frame = load()
    frame.iloc[first + half + 1 :] = frame.iloc[first + half + 1 :].shift(1, fill_value=900.0) * 3
    return frame

  monkeypatch.setattr(package, 'load', changed)
  after = finance.sp500(FOLD)
  np.testing.assert_array_equal(np.stack(after.train.scale), np.stack(before.train.scale))
  assert before.train.fingerprint() == after.train.fingerprint()
  assert before.validation.fingerprint() == after.validation.fingerprint()
  known = np.arange(half)
  for name, array in before.test.rows(known).items():
    assert array.tobytes() == after.test.rows(known)[name].tobytes()
  np.testing.assert_array_equal(  # what the first changed day is forecast from has not changed either
    before.test.rows(np.array([half]))['inputs'], after.test.rows(np.array([half]))['inputs']
  )
  assert (before.test.rows(np.array([half]))['targets'] != after.test.rows(np.array([half]))['targets']).all()


@pytest.mark.parametrize(
  ('fold', 'num_folds', 'field'), [(8, 8, 'fold'), (-1, 8, 'fold'), (0, 9, 'num_folds'), (0, 0, 'num_folds')]
)
def test_a_fold_that_does_not_exist(fold, num_folds, field):
  with pytest.raises(ConfigError, match=f'{field}='):
    finance.sp500(fold, num_folds)
