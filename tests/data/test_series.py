"""Windows of a series: what a row holds, where parts end, and that the scale has seen the first part alone."""

import numpy as np
import pytest
from sklearn.preprocessing import StandardScaler

from research.data import series
from research.errors import ConfigError

RANDOM = np.random.default_rng(0)
VALUES = RANDOM.normal(3, 5, (60, 2))
ENDS = (30, 42, 56)


def cut(values=VALUES, targets=None, context=6, horizon=3):
  return series.windows(values, targets, ENDS, context, horizon, ('a', 'b'))


def test_a_row_is_a_stretch_of_the_series_and_what_follows_it():
  scaled = StandardScaler().fit(VALUES[:30]).transform(VALUES)
  for part, first, last in zip(cut()[:3], (6, 30, 42), (27, 39, 53), strict=True):
    assert len(part) == last - first + 1  # every step of the part that a window fits before and after, the last too
    rows = part.rows(np.array([0, len(part) - 1]))
    for row, step in enumerate((first, last)):
      np.testing.assert_allclose(rows['inputs'][row], scaled[step - 6 : step], atol=1e-6)
      np.testing.assert_allclose(rows['targets'][row], scaled[step : step + 3], atol=1e-6)
    assert rows['inputs'].dtype == rows['targets'].dtype == np.float32


def test_targets_of_their_own_are_not_rescaled():
  targets = np.arange(60.0)[:, None]
  rows = cut(targets=targets, horizon=1).test.rows(np.arange(14))
  np.testing.assert_array_equal(rows['targets'][:, 0, 0], np.arange(42, 56))


def test_a_constant_variable_is_only_centered():
  data = cut(np.stack([np.full(60, 14.62), VALUES[:, 1]], axis=1))
  assert data.train.scale.std[0] == 1 and (np.abs(data.train.inputs[:, 0]) < 1e-12).all()


def test_fingerprint_follows_values_and_windows():
  changed = VALUES.copy()
  changed[40] += 1
  prints = {data.validation.fingerprint() for data in (cut(), cut(changed), cut(context=5), cut(horizon=4))}
  assert len(prints) == 4 and cut().train.fingerprint() == cut(changed).train.fingerprint()


@pytest.mark.parametrize(('context', 'horizon'), [(28, 3), (70, 3), (6, 13)])
def test_windows_that_do_not_fit_are_refused(context, horizon):
  with pytest.raises(ConfigError, match=f'context={context}, horizon={horizon}: .* split'):
    cut(context=context, horizon=horizon)


@pytest.mark.parametrize('name', ['context', 'horizon'])
def test_empty_windows_are_refused(name):
  with pytest.raises(ConfigError, match=f'{name}=0'):
    cut(**{name: 0})


@pytest.mark.parametrize('ends', [(20, 10, 30), (20, 20, 30), (0, 10, 30), (10, 20, 1_000)])
def test_ends_that_are_not_in_the_series_are_refused(ends):
  with pytest.raises(ConfigError, match='^ends='):
    series.windows(VALUES, None, ends, 2, 1, ('a', 'b'))
