"""scikit-learn tables with cross-validation: float32 inputs [examples, features], not standardized."""

import numpy as np

from research.data import splits
from research.data.examples import Arrays, Dataset


def breast_cancer(fold: int = 0, num_folds: int = 5, split_seed: int = 0) -> Dataset:
  """Tumors by 30 features of their cell nuclei: 569 examples, two classes, stratified folds.

  Source: Street, Wolberg and Mangasarian (1993), Wisconsin diagnostic breast cancer.
  """
  from sklearn.datasets import load_breast_cancer

  bunch = load_breast_cancer()
  parts = splits.cross_validation(bunch.target, fold, num_folds, split_seed)
  class_names = tuple(map(str, bunch.target_names))
  return _parts(bunch.data, bunch.target.astype(np.int32), parts, class_names)


def diabetes(fold: int = 0, num_folds: int = 5, split_seed: int = 0) -> Dataset:
  """Progression of diabetes after a year (25 to 346, not rescaled) by 10 features: 442 examples, plain folds.

  Source: Efron, Hastie, Johnstone and Tibshirani (2004), 'Least angle regression'.
  """
  from sklearn.datasets import load_diabetes

  bunch = load_diabetes(scaled=False)
  parts = splits.cross_validation(np.zeros(len(bunch.target)), fold, num_folds, split_seed)
  return _parts(bunch.data, bunch.target.astype(np.float32), parts)


def _parts(
  inputs: np.ndarray, targets: np.ndarray, parts: tuple[np.ndarray, ...], class_names: tuple[str, ...] = ()
) -> Dataset:
  inputs = inputs.astype(np.float32)
  return Dataset(*(Arrays({'inputs': inputs[part], 'targets': targets[part]}) for part in parts), class_names)
