"""Metrics that are not means over examples, computed on the host from all outputs of a split.

Each is a report, `(outputs, rows) -> pairs of a name and a number`; see `research.evaluate.reports`.
"""

import functools
from collections.abc import Iterator, Sequence

import numpy as np

from research.data.examples import counting
from research.evaluate.reports import Report
from research.types import Rows

CHUNK = 2**10  # examples


def multiclass(logits: np.ndarray, rows: Rows) -> Iterator[tuple[str, float]]:
  """Macro F1, ROC AUC and calibration error of logits [examples, ..., classes]; masked targets are excluded.

  The ROC AUC is one-vs-rest, averaged over classes.
  """
  counts = counting(rows)
  targets, logits = rows['targets'][counts], logits[counts]
  predictions, odds = logits.argmax(-1), log_odds(logits)
  yield 'macro_f1', macro_f1(targets, predictions)
  one_hot = targets[:, None] == np.arange(logits.shape[-1])
  if one_hot.any(0).all() and not one_hot.all(0).any():  # undefined without positives and negatives
    yield 'roc_auc', float(np.mean([roc_auc(*of_class) for of_class in zip(odds.T, one_hot.T, strict=True)]))
  yield 'calibration_error', calibration_error(sigmoid(odds.max(-1)), predictions == targets)


def binary(logits: np.ndarray, rows: Rows) -> Iterator[tuple[str, float]]:
  """Macro F1, ROC AUC and calibration error of logits [examples, labels] of class 1, over all labels."""
  counts = counting(rows).ravel()
  targets, logits = rows['targets'].ravel()[counts], logits.astype(np.float64).ravel()[counts]
  yield 'macro_f1', macro_f1(targets.astype(int), (logits > 0).astype(int))
  if len(np.unique(targets)) == 2:
    yield 'roc_auc', roc_auc(logits, targets == 1)
  yield 'calibration_error', calibration_error(sigmoid(np.abs(logits)), (logits > 0) == targets)


def regression(predictions: np.ndarray, rows: Rows) -> Iterator[tuple[str, float]]:
  """R2 (explained variance of the targets), RMSE and MAE in the targets' units, averaged over outputs."""
  counts, targets = (array.reshape(len(predictions), -1) for array in (counting(rows), rows['targets']))
  predictions = predictions.reshape(targets.shape).astype(np.float64)
  outputs = [(real[own], guess[own]) for real, guess, own in zip(targets.T, predictions.T, counts.T, strict=True)]
  outputs = [(real, guess) for real, guess in outputs if len(real)]
  squared = [np.mean((real - guess) ** 2) for real, guess in outputs]
  if all(np.ptp(real) > 0 for real, _ in outputs):  # undefined without variance
    yield 'r2', float(np.mean([1 - error / np.var(real) for error, (real, _) in zip(squared, outputs, strict=True)]))
  yield 'rmse', float(np.mean(np.sqrt(squared)))
  yield 'mae', float(np.mean([np.mean(np.abs(real - guess)) for real, guess in outputs]))


def macro_f1(targets: np.ndarray, predictions: np.ndarray) -> float:
  """F1 score of integer predictions [examples], averaged over the classes in targets or predictions."""
  count = functools.partial(np.bincount, minlength=1 + max(targets.max(), predictions.max()))
  occurrences = count(targets) + count(predictions)
  return float(np.mean((2 * count(targets[targets == predictions]) / np.maximum(occurrences, 1))[occurrences > 0]))


def log_odds(logits: np.ndarray) -> np.ndarray:
  """log p - log(1 - p) of every class's probability p, for logits [examples, classes]: in float64, without saturation.

  Softmax rounds p near 1 to 1, so 1 - p of the most probable class is the sum of the others.
  """
  odds = np.empty(logits.shape)
  for start in range(0, len(logits), CHUNK):  # what is computed on the way takes several times the memory
    odds[start : start + CHUNK] = _log_odds(logits[start : start + CHUNK].astype(np.float64))
  return odds


def _log_odds(logits: np.ndarray) -> np.ndarray:
  best = logits.argmax(-1)[:, None]
  log_p = logits - np.logaddexp.reduce(logits, axis=-1, keepdims=True)
  others = log_p.copy()
  np.put_along_axis(others, best, -np.inf, axis=-1)
  odds = others - np.log1p(-np.exp(others))
  of_best = np.take_along_axis(log_p, best, -1) - np.logaddexp.reduce(others, axis=-1, keepdims=True)
  np.put_along_axis(odds, best, of_best, axis=-1)
  return odds


def sigmoid(odds: np.ndarray) -> np.ndarray:
  """Probabilities of log odds, without overflow."""
  return np.exp(-np.logaddexp(0, -odds))


def roc_auc(scores: np.ndarray, positive: np.ndarray) -> float:
  """Area under the ROC curve of scores [examples]: the probability that a positive ranks above a negative."""
  above, negatives = scores[positive], np.sort(scores[~positive])
  wins = np.searchsorted(negatives, above, 'left') + np.searchsorted(negatives, above, 'right')  # Mann, Whitney (1947)
  return float(wins.mean() / (2 * len(negatives)))


def accuracy_by(field: str, names: Sequence[str]) -> Report:
  """Report of the accuracy per group; `field` of the rows is the index of the group in `names`."""

  def report(logits: np.ndarray, rows: Rows) -> Iterator[tuple[str, float]]:
    right = logits.argmax(-1) == rows['targets']
    for number in np.unique(rows[field]):
      yield f'accuracy_{names[number]}', float(right[rows[field] == number].mean())

  return report


def calibration_error(confidence: np.ndarray, right: np.ndarray, bins: int = 15) -> float:
  """Expected calibration error (Guo et al. 2017, equation 3) of predictions [examples], each right or wrong.

  The gap between confidence and accuracy in bins of equal width, weighted by their numbers of examples.
  """
  bin_of = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
  gaps = np.bincount(bin_of, right - confidence, bins)
  return float(np.abs(gaps).sum() / len(right))


def confusion_matrix(logits: np.ndarray, targets: np.ndarray) -> np.ndarray:
  """Counts [class, predicted class] for logits [examples, classes], or [examples, 1] of class 1."""
  if logits.shape[-1] == 1:
    logits = np.concatenate([np.zeros_like(logits), logits], axis=-1)
  num_classes = logits.shape[-1]
  pairs = targets.ravel() * num_classes + logits.argmax(-1)
  return np.bincount(pairs, minlength=num_classes**2).reshape(num_classes, num_classes)
