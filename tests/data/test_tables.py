"""Tables: folds that cover all, numbers as they were measured, and scales fitted on the training part alone."""

import dataclasses

import numpy as np
import pytest
import sklearn.datasets
from sklearn.preprocessing import StandardScaler

from experiments.mlp_breast_cancer import config as mlp_breast_cancer
from experiments.mlp_diabetes import config as mlp_diabetes
from research.data import tables
from research.errors import ConfigError

BUILDERS = [tables.breast_cancer, tables.diabetes]
LOADERS = ['load_breast_cancer', 'load_diabetes']


@pytest.mark.parametrize('builder, size', [(tables.breast_cancer, 569), (tables.diabetes, 442)])
def test_five_folds_test_every_example_once(builder, size):
  folds = [builder(fold) for fold in range(5)]
  assert sum(len(data.test) for data in folds) == size
  assert all(sum(map(len, data[:3])) == size for data in folds)


def test_the_network_sees_inputs_as_scikit_learn_scales_them():
  table = sklearn.datasets.load_breast_cancer()
  config = dataclasses.replace(mlp_breast_cancer.get_config('tiny'), fold=2)
  data, preprocess = tables.breast_cancer(fold=2), config.network(config.build().fitted).preprocess
  train, _, test = tables.splits.cross_validation(table.target, 2, 5, 0)
  scaler = StandardScaler().fit(table.data[train])
  found = preprocess(data.test.arrays)['inputs']
  np.testing.assert_allclose(found, scaler.transform(table.data[test]), rtol=1e-4, atol=1e-4)
  np.testing.assert_array_equal(data.test.arrays['targets'], table.target[test])
  assert data.class_names == ('malignant', 'benign')
  assert {array.dtype for array in data.train.arrays.values()} == {np.dtype('float32'), np.dtype('int32')}


@pytest.mark.parametrize('module, name', [(mlp_breast_cancer, 'load_breast_cancer'), (mlp_diabetes, 'load_diabetes')])
def test_the_scale_never_sees_validation_or_test(monkeypatch, module, name):
  """Other numbers in the held-out parts change nothing of what is fitted or trained on."""
  load = getattr(sklearn.datasets, name)
  config = dataclasses.replace(module.get_config('tiny'), fold=1)
  before = config.build()
  labels = load().target if name == 'load_breast_cancer' else np.zeros(len(load().target))
  _, validation, test = tables.splits.cross_validation(labels, 1, 5, 0)

  def changed(**arguments):
    table = load(**arguments)
    table.data[np.concatenate([validation, test])] *= 7
    return table

  monkeypatch.setattr(sklearn.datasets, name, changed)
  after = config.build()
  assert before.fitted == after.fitted and before.train.examples.fingerprint() == after.train.examples.fingerprint()
  tested = [experiment.final_evaluators['test'].examples.arrays['inputs'] for experiment in (before, after)]
  assert not np.allclose(*tested)


def test_diabetes_has_raw_inputs_and_targets():
  data = tables.diabetes(fold=0)
  inputs = np.concatenate([part.arrays['inputs'] for part in data[:3]])
  assert inputs.dtype == np.float32 and (inputs[:, 0].min(), inputs[:, 0].max()) == (19, 79), 'years of age'
  targets = np.concatenate([part.arrays['targets'] for part in data[:3]])
  assert targets.dtype == np.float32 and (targets.min(), targets.max()) == (25, 346)


def test_seed_moves_the_folds():
  assert tables.diabetes(0, split_seed=1).test.fingerprint() != tables.diabetes(0).test.fingerprint()


@pytest.mark.parametrize('builder', BUILDERS)
def test_a_fold_that_does_not_exist(builder):
  with pytest.raises(ConfigError, match='fold=5: must be a whole number from 0 to 4'):
    builder(fold=5)
