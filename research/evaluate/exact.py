"""Metrics that are no mean over examples: computed on the host from all the outputs of a part.

Each is a report, `(outputs, rows) -> pairs of a name and a number`; see `research.evaluate.evaluator`.
"""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from scipy.special import expit, softmax

from research.evaluate.evaluator import Report

Rows = Mapping[str, np.ndarray]


def multiclass(logits: np.ndarray, rows: Rows) -> Iterator[tuple[str, float]]:
  """Macro F1, ROC AUC (one class against the rest, mean over classes) and calibration error of [examples, classes]."""
  from sklearn.metrics import f1_score, roc_auc_score  # slow to import

  targets, probabilities = rows['targets'], softmax(logits.astype(np.float64), axis=-1)
  yield 'macro_f1', float(f1_score(targets, logits.argmax(-1), average='macro'))
  if len(np.unique(targets)) == logits.shape[-1]:  # it is not defined without an example of each class
    scores = probabilities[:, 1] if logits.shape[-1] == 2 else probabilities  # of two classes it wants the second
    yield 'roc_auc', float(roc_auc_score(targets, scores, multi_class='ovr'))
  yield 'calibration_error', calibration_error(probabilities, targets)


def binary(logits: np.ndarray, rows: Rows) -> Iterator[tuple[str, float]]:
  """Macro F1, ROC AUC and calibration error of logits [examples, 1] of class 1."""
  from sklearn.metrics import f1_score, roc_auc_score

  targets, positive = rows['targets'].ravel(), expit(logits.astype(np.float64).ravel())
  yield 'macro_f1', float(f1_score(targets, positive > 0.5, average='macro'))
  if len(np.unique(targets)) == 2:
    yield 'roc_auc', float(roc_auc_score(targets, positive))
  yield 'calibration_error', calibration_error(np.stack([1 - positive, positive], axis=-1), targets)


def regression(predictions: np.ndarray, rows: Rows) -> Iterator[tuple[str, float]]:
  """R2 (the part of the targets' variance that is explained), RMSE and MAE in the targets' unit."""
  from sklearn.metrics import mean_absolute_error, r2_score, root_mean_squared_error

  targets = rows['targets'].reshape(len(predictions), -1)
  predictions = predictions.reshape(targets.shape).astype(np.float64)
  yield 'r2', float(r2_score(targets, predictions))
  yield 'rmse', float(root_mean_squared_error(targets, predictions))
  yield 'mae', float(mean_absolute_error(targets, predictions))


def accuracy_by(field: str, names: Sequence[str]) -> Report:
  """Report of the accuracy of each group of examples that there is; `field` of the rows holds its number in `names`."""

  def report(logits: np.ndarray, rows: Rows) -> Iterator[tuple[str, float]]:
    right = logits.argmax(-1) == rows['targets']
    for number in np.unique(rows[field]):
      yield f'accuracy_{names[number]}', float(right[rows[field] == number].mean())

  return report


def calibration_error(probabilities: np.ndarray, targets: np.ndarray, bins: int = 15) -> float:
  """Expected calibration error (Guo et al. 2017, equation 3) of probabilities [examples, classes].

  The gap between confidence and accuracy within bins of equal width, weighted by their numbers of examples.
  """
  confidence, right = probabilities.max(-1), probabilities.argmax(-1) == targets
  bin_of = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
  gaps = np.bincount(bin_of, right - confidence, bins)
  return float(np.abs(gaps).sum() / len(targets))


def confusion_matrix(logits: np.ndarray, targets: np.ndarray) -> np.ndarray:
  """Counts [class, predicted class] for logits [examples, classes], or [examples, 1] of class 1."""
  if logits.shape[-1] == 1:
    logits = np.concatenate([np.zeros_like(logits), logits], axis=-1)
  classes = logits.shape[-1]
  pairs = targets.ravel() * classes + logits.argmax(-1)
  return np.bincount(pairs, minlength=classes**2).reshape(classes, classes)
