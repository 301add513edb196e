"""Metrics on collected predictions against counts by hand and scikit-learn."""

import numpy as np
import pytest
from sklearn import metrics

from research.evaluate import exact

NUMBERS = np.random.default_rng(1)
TARGETS = NUMBERS.integers(0, 4, 200).astype(np.int32)
LOGITS = (NUMBERS.normal(size=(200, 4)) + 1.5 * np.eye(4)[TARGETS]).astype(np.float32)


def probabilities(logits: np.ndarray) -> np.ndarray:
  powers = np.exp(logits.astype(np.float64))
  return powers / powers.sum(1, keepdims=True)


def pairs_ranked(scores: np.ndarray, positive: np.ndarray) -> float:
  """Area under the curve as Mann and Whitney count it: positives above negatives, ties half."""
  above = scores[positive][:, None] - scores[~positive][None]
  return ((above > 0) + (above == 0) / 2).mean()


def f1(predicted: np.ndarray, actual: np.ndarray) -> float:
  return 2 * (predicted & actual).sum() / (predicted.sum() + actual.sum())


def test_multiclass():
  values = dict(exact.multiclass(LOGITS, {'targets': TARGETS}))
  guess, chances = LOGITS.argmax(1), probabilities(LOGITS)
  assert values['macro_f1'] == pytest.approx(np.mean([f1(guess == c, c == TARGETS) for c in range(4)]))
  assert values['roc_auc'] == pytest.approx(np.mean([pairs_ranked(chances[:, c], c == TARGETS) for c in range(4)]))
  assert values['calibration_error'] == pytest.approx(exact.calibration_error(chances.max(1), guess == TARGETS))


def test_multiclass_of_two_classes_is_binary():
  targets, logits = (TARGETS > 1).astype(np.int32), LOGITS[:, 1:3]
  values = dict(exact.multiclass(logits, {'targets': targets}))
  assert values == pytest.approx(dict(exact.binary(logits[:, 1:] - logits[:, :1], {'targets': targets})), rel=1e-5)


def test_positions_that_the_mask_leaves_out_are_in_no_score():
  mask = NUMBERS.integers(0, 2, 200)
  plain = {'targets': TARGETS[mask > 0]}
  rows = {'targets': np.where(mask, TARGETS, -100).reshape(20, 10), 'mask': mask.reshape(20, 10)}
  assert dict(exact.multiclass(LOGITS.reshape(20, 10, 4), rows)) == dict(exact.multiclass(LOGITS[mask > 0], plain))
  flags = {name: np.minimum(array, 1) for name, array in {**rows, 'plain': TARGETS[mask > 0]}.items()}
  logits = LOGITS[:, 0].reshape(20, 10)
  alone = dict(exact.binary(LOGITS[mask > 0, :1], {'targets': flags['plain']}))
  assert dict(exact.binary(logits, flags)) == alone and 'roc_auc' in alone


@pytest.mark.parametrize('shape', [(200,), (200, 1)])
def test_binary(shape):
  targets = (TARGETS > 1).astype(np.int32)
  logits = (NUMBERS.normal(size=(200, 1)) + targets[:, None]).astype(np.float32)
  values = dict(exact.binary(logits, {'targets': targets.reshape(shape)}))
  positive = logits[:, 0] > 0
  by_hand = (f1(positive, targets == 1) + f1(~positive, targets == 0)) / 2
  assert values['macro_f1'] == pytest.approx(by_hand)
  assert values['roc_auc'] == pytest.approx(pairs_ranked(logits[:, 0], targets == 1))
  chance = 1 / (1 + np.exp(-logits.astype(np.float64)))
  sure = np.maximum(chance, 1 - chance)[:, 0]
  assert values['calibration_error'] == pytest.approx(exact.calibration_error(sure, positive == targets))


@pytest.mark.parametrize('shape', [(50,), (50, 1)])
def test_regression(shape):
  targets = NUMBERS.normal(size=shape).astype(np.float32)
  predictions = (targets.reshape(50, 1) + NUMBERS.normal(size=(50, 1))).astype(np.float32)
  values = dict(exact.regression(predictions, {'targets': targets}))
  error = predictions.ravel().astype(float) - targets.ravel()
  assert values['rmse'] == pytest.approx(np.sqrt((error**2).mean()))
  assert values['mae'] == pytest.approx(np.abs(error).mean())
  assert values['r2'] == pytest.approx(1 - (error**2).mean() / targets.astype(float).var())


def test_regression_is_over_what_the_mask_leaves():
  mask, targets = NUMBERS.integers(0, 2, (50, 3)), NUMBERS.normal(size=(50, 3))
  predictions = targets + NUMBERS.normal(size=(50, 3))
  values = dict(exact.regression(predictions, {'targets': np.where(mask, targets, np.nan), 'mask': mask}))
  outputs = [(targets[own, n], predictions[own, n]) for n, own in enumerate(mask.T > 0)]
  assert values['mae'] == pytest.approx(np.mean([np.abs(real - guess).mean() for real, guess in outputs]))
  assert values['r2'] == pytest.approx(
    np.mean([1 - ((real - guess) ** 2).mean() / real.var() for real, guess in outputs])
  )


def test_calibration_error_by_hand():
  """Two bins of 15: confidences .6, .6 (one right) and .95 (right)."""
  error = exact.calibration_error(np.array([0.6, 0.6, 0.95]), np.array([True, False, True]))
  assert error == pytest.approx((2 * abs(0.5 - 0.6) + 1 * abs(1 - 0.95)) / 3)
  assert exact.calibration_error(np.ones(2), np.array([True, True])) == 0
  assert exact.calibration_error(np.ones(2), np.array([False, False])) == 1


def test_saturated_logits_still_rank():
  targets, logits = np.array([0, 0, 1, 1]), np.array([40.0, 45.0, 50.0, 60.0], np.float32)
  assert dict(exact.binary(logits[:, None], {'targets': targets}))['roc_auc'] == 1
  for other in (0.0, -1e4, 1e4, -np.inf):  # a class more, far away or impossible
    three = np.stack([np.zeros(4), logits, np.full(4, other if other < 1 else 0.0)], axis=1)
    odds = exact.log_odds(three)
    assert exact.roc_auc(odds[:, 1], targets == 1) == exact.roc_auc(-odds[:, 0], targets == 1) == 1


def test_log_odds_against_sums_of_the_other_classes_in_more_bits():
  logits = np.array([[0.3, -1.0, 2.0], [80.0, 1.0, 0.0], [-800.0, 700.0, 699.0], [1e-20, 0.0, -50.0]])
  powers = np.exp(logits.astype(np.longdouble))
  others = np.stack([np.delete(powers, number, 1).sum(1) for number in range(3)], axis=1)
  np.testing.assert_allclose(exact.log_odds(logits), np.log(powers / others), rtol=1e-12, atol=1e-15)


def test_scores_are_scikit_learns():
  """Scores with ties, a class that is never guessed and one that is only guessed."""
  targets, predictions = NUMBERS.integers(0, 4, 300), NUMBERS.integers(1, 6, 300)
  assert exact.macro_f1(targets, predictions) == pytest.approx(metrics.f1_score(targets, predictions, average='macro'))
  scores, positive = NUMBERS.integers(0, 9, 300) / 2, targets > 1
  assert exact.roc_auc(scores, positive) == pytest.approx(metrics.roc_auc_score(positive, scores))
  observed, predicted = NUMBERS.normal(size=(2, 300, 3))
  values = dict(exact.regression(predicted, {'targets': observed}))
  assert values['r2'] == pytest.approx(metrics.r2_score(observed, predicted))
  assert values['rmse'] == pytest.approx(metrics.root_mean_squared_error(observed, predicted))
  assert values['mae'] == pytest.approx(metrics.mean_absolute_error(observed, predicted))


def test_undefined_scores_are_left_out():
  one = {'targets': np.array([3.0])}
  assert set(dict(exact.regression(np.array([[2.0]]), one))) == {'rmse', 'mae'}
  assert 'r2' not in dict(exact.regression(np.zeros((3, 2)), {'targets': np.array([[1.0, 2], [1, 3], [1, 4]])}))
  for logits, targets in ((np.eye(3)[[0, 1]], [0, 1]), (np.eye(2)[[0, 0]], [0, 0])):
    assert set(dict(exact.multiclass(logits, {'targets': np.array(targets)}))) == {'macro_f1', 'calibration_error'}
  assert 'roc_auc' not in dict(exact.binary(np.ones((2, 1)), {'targets': np.array([1, 1])}))


def test_confusion_matrix():
  expected = metrics.confusion_matrix(TARGETS, LOGITS.argmax(1))
  np.testing.assert_array_equal(exact.confusion_matrix(LOGITS, TARGETS), expected)
  one = exact.confusion_matrix(np.array([[2.0], [-1.0], [3.0]]), np.array([1, 1, 0]))
  np.testing.assert_array_equal(one, [[0, 1], [1, 1]])


def test_accuracy_of_each_group_that_is_there():
  rows = {'targets': np.array([0, 1, 1, 0]), 'speakers': np.array([2, 0, 2, 2])}
  logits = np.eye(2)[[0, 1, 0, 0]]
  values = dict(exact.accuracy_by('speakers', ('ann', 'ben', 'cleo'))(logits, rows))
  assert values == {'accuracy_ann': 1.0, 'accuracy_cleo': pytest.approx(2 / 3)}


def test_confidences_fall_into_fifteen_bins():
  """Gaps of opposite signs cancel within a bin and add up over bins."""
  second = np.array([False, True])  # is right
  assert exact.calibration_error(np.array([0.05, 0.1]), second) == pytest.approx((0.05 + 0.9) / 2)
  assert exact.calibration_error(np.array([1.0, 0.92]), second) == pytest.approx((1 + 0.08) / 2)
  together = np.array([0.62, 0.66])  # of the bin from .6 to .667
  assert exact.calibration_error(together, ~second) == pytest.approx(abs(0.38 - 0.66) / 2)


def test_a_part_without_an_example_of_each_class_has_no_area():
  ones = np.ones(200, np.int32)
  assert set(dict(exact.binary(LOGITS[:, :1], {'targets': ones}))) == {'macro_f1', 'calibration_error'}
  assert set(dict(exact.multiclass(LOGITS, {'targets': np.minimum(TARGETS, 2)}))) == {'macro_f1', 'calibration_error'}
