"""The one scale of tables and series: against scikit-learn, for constants, and as text."""

import numpy as np
import pytest
import sklearn.datasets

from research.data import tables
from research.data.scaling import fit_scale, scale_of
from research.errors import DataError
from research.train.description import as_json

RANDOM = np.random.default_rng(0)
VALUES = RANDOM.normal(3, 5, (60, 2))


@pytest.mark.parametrize('rows', [1, 1_000, 200_000])
@pytest.mark.parametrize('noise', [0, 3e-16])
@pytest.mark.parametrize('dtype', [np.float64, np.float32])
def test_a_constant_is_only_centered_however_its_deviation_is_rounded(rows, noise, dtype):
  column = (14.62 * (1 + noise * RANDOM.integers(-3, 4, (rows, 1)))).astype(dtype)
  scale = fit_scale(column)
  assert scale.std == 1
  np.testing.assert_allclose(scale.standardized(np.array([[14.62], [15.0]])), [[0], [0.38]], atol=1e-5)
  assert fit_scale(np.zeros((rows, 1), dtype)).std == 1


@pytest.mark.parametrize('size', [1e-30, 1.0, 1e30])
def test_what_varies_keeps_its_deviation_whatever_its_size(size):
  for middle in (0, 1e6):
    values = size * (middle + RANDOM.normal(size=(1_000, 1)))
    np.testing.assert_allclose(fit_scale(values).std, values.std(axis=0), rtol=1e-6)
  years = np.arange(1_990, 2_020)[:, None]
  np.testing.assert_allclose(fit_scale(years).std, years.std(axis=0))


@pytest.mark.parametrize('value', [np.nan, np.inf])
def test_a_value_that_would_make_its_whole_column_nan_is_refused(value):
  values = VALUES.copy()
  values[7, 1] = value
  with pytest.raises(DataError, match=rf'^column 1: is {value} in row 7; fill or drop it'):
    fit_scale(values)


def test_a_constant_feature_of_a_table_stays_small(monkeypatch):
  load = sklearn.datasets.load_diabetes

  def with_constant(**arguments):
    table = load(**arguments)
    table.data[:, 3] = 14.62
    table.data[7, 3] = 15.0
    return table

  monkeypatch.setattr(sklearn.datasets, 'load_diabetes', with_constant)
  folds = [[part.arrays['inputs'] for part in tables.diabetes(fold)[:3]] for fold in range(5)]
  scaled = [fit_scale(parts[0]).standardized(part)[:, 3] for parts in folds for part in parts]
  assert max(np.abs(part).max() for part in scaled) < 20  # where it is trained on, the square root of 317 examples


@pytest.mark.parametrize('values', [VALUES, VALUES / 50])
def test_raw_undoes_standardized_and_json_keeps_the_scale_to_the_bit(values):
  scale = fit_scale(values)
  np.testing.assert_allclose(scale.raw(scale.standardized(values)), values, rtol=1e-5)
  again = scale_of(as_json(scale._asdict()))
  np.testing.assert_array_equal(np.stack(again), np.stack(scale))
