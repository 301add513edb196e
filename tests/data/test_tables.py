"""Tables: folds that cover all, and a scaler that has seen the training part alone."""

import numpy as np
import pytest
import sklearn.datasets
from sklearn.preprocessing import StandardScaler

from research.data import tables
from research.errors import ConfigError

BUILDERS = [tables.breast_cancer, tables.diabetes]
LOADERS = ['load_breast_cancer', 'load_diabetes']


@pytest.mark.parametrize('builder, size', [(tables.breast_cancer, 569), (tables.diabetes, 442)])
def test_five_folds_test_every_example_once(builder, size):
  folds = [builder(fold) for fold in range(5)]
  assert sum(len(data.test) for data in folds) == size
  assert all(sum(map(len, data[:3])) == size for data in folds)


def test_inputs_are_as_scikit_learn_scales_them():
  table = sklearn.datasets.load_breast_cancer()
  data = tables.breast_cancer(fold=2)
  train, _, test = tables.splits.cross_validation(table.target, 2, 5, 0)
  scaler = StandardScaler().fit(table.data[train])
  np.testing.assert_allclose(data.test.arrays['inputs'], scaler.transform(table.data[test]), atol=1e-5)
  np.testing.assert_array_equal(data.test.arrays['targets'], table.target[test])
  assert data.class_names == ('malignant', 'benign')
  assert {array.dtype for array in data.train.arrays.values()} == {np.dtype('float32'), np.dtype('int32')}


@pytest.mark.parametrize(
  'builder, name', [(tables.breast_cancer, 'load_breast_cancer'), (tables.diabetes, 'load_diabetes')]
)
def test_the_scaler_never_sees_validation_or_test(monkeypatch, builder, name):
  """Other numbers in the held-out parts change nothing of what is trained on."""
  load = getattr(sklearn.datasets, name)
  before = builder(fold=1)
  labels = load().target if name == 'load_breast_cancer' else np.zeros(len(load().target))
  _, validation, test = tables.splits.cross_validation(labels, 1, 5, 0)

  def changed(**arguments):
    table = load(**arguments)
    table.data[np.concatenate([validation, test])] *= 7
    return table

  monkeypatch.setattr(sklearn.datasets, name, changed)
  after = builder(fold=1)
  np.testing.assert_array_equal(before.train.arrays['inputs'], after.train.arrays['inputs'])
  assert not np.allclose(before.test.arrays['inputs'], after.test.arrays['inputs'])


def test_diabetes_has_standard_inputs_and_raw_targets():
  data = tables.diabetes(fold=0)
  inputs = data.train.arrays['inputs']
  np.testing.assert_allclose(inputs.mean(0), 0, atol=1e-5)
  np.testing.assert_allclose(inputs.std(0), 1, atol=1e-5)
  targets = np.concatenate([part.arrays['targets'] for part in data[:3]])
  assert targets.dtype == np.float32 and (targets.min(), targets.max()) == (25, 346)


def test_seed_moves_the_folds():
  assert tables.diabetes(0, split_seed=1).test.fingerprint() != tables.diabetes(0).test.fingerprint()


@pytest.mark.parametrize('builder', BUILDERS)
def test_a_fold_that_does_not_exist(builder):
  with pytest.raises(ConfigError, match='fold=5: must be a whole number from 0 to 4'):
    builder(fold=5)
