"""Splits of a data set: disjoint, complete, stratified and never moving."""

import hashlib

import numpy as np
import pytest

from research.data import splits
from research.errors import ConfigError

LABELS = np.random.default_rng(1).choice(4, 1003, p=[0.6, 0.25, 0.1, 0.05])
SIZES = (700, 203, 100)


def assert_stratified(labels, parts):
  for part in parts:
    found = np.bincount(labels[part], minlength=labels.max() + 1)
    fair = np.bincount(labels) * len(part) / len(labels)
    assert np.abs(found - fair).max() <= 2


def test_parts_are_disjoint_complete_and_stratified():
  parts = splits.split(LABELS, SIZES, seed=0)
  assert [len(part) for part in parts] == list(SIZES)
  np.testing.assert_array_equal(np.sort(np.concatenate(parts)), np.arange(len(LABELS)))
  assert_stratified(LABELS, parts)


def test_a_split_is_random_within_a_class():
  """Of the examples of a class, those chosen are spread evenly over the whole range."""
  labels = np.repeat([0, 1], 5000)
  (_, chosen) = splits.split(labels, (9000, 1000), seed=3)
  spread = np.histogram(chosen, bins=10, range=(0, 10_000))[0]
  assert spread.min() > 70 and spread.max() < 130


def test_a_split_is_fixed_by_its_seed():
  parts = splits.split(LABELS, SIZES, seed=0)
  again = splits.split(LABELS, SIZES, seed=0)
  other = splits.split(LABELS, SIZES, seed=1)
  assert all(np.array_equal(*pair) for pair in zip(parts, again, strict=True))
  assert not np.array_equal(parts[2], other[2])
  digest = hashlib.sha256(np.concatenate(parts).astype('<i8').tobytes()).hexdigest()
  assert digest[:16] == '0a86bb802dfd6295', 'a split that moves makes every published number void'


def test_sizes_must_add_up():
  assert [len(part) for part in splits.split(LABELS, (1003, 0), seed=0)] == [1003, 0]
  for sizes in ((700, 200), (1004, -1)):
    with pytest.raises(ConfigError, match='add up to the 1003 examples'):
      splits.split(LABELS, sizes, seed=0)


@pytest.mark.parametrize('num_folds', [2, 5])
def test_every_example_is_tested_in_one_fold(num_folds):
  tested = []
  for fold in range(num_folds):
    parts = splits.cross_validation(LABELS, fold, num_folds, seed=0)
    np.testing.assert_array_equal(np.sort(np.concatenate(parts)), np.arange(len(LABELS)))
    assert_stratified(LABELS, parts)
    train, validation, test = parts
    assert len(validation) == round(0.1 * (len(train) + len(validation)))
    tested.append(test)
  np.testing.assert_array_equal(np.sort(np.concatenate(tested)), np.arange(len(LABELS)))


@pytest.mark.parametrize(
  'fold, num_folds, field',
  [
    (5, 5, 'fold=5: must be a whole number from 0 to 4'),
    (-1, 5, 'fold=-1'),
    (0, 1, 'num_folds=1'),
    (0, 2000, 'num_folds=2000'),
  ],
)
def test_a_fold_that_does_not_exist(fold, num_folds, field):
  with pytest.raises(ConfigError, match=field):
    splits.cross_validation(LABELS, fold, num_folds, seed=0)


@pytest.mark.parametrize('fraction', [-0.1, 1.0, np.nan])
def test_a_share_that_leaves_nothing_to_train_on(fraction):
  with pytest.raises(ConfigError, match=f'fraction={fraction}'):
    splits.hold_out(LABELS, fraction, seed=0)
  with pytest.raises(ConfigError, match=f'validation={fraction}'):
    splits.cross_validation(LABELS, 0, 5, 0, fraction)


def test_a_negative_seed():
  with pytest.raises(ConfigError, match='seed=-1'):
    splits.stratified_order(LABELS, -1)


@pytest.mark.parametrize('counts', [[292, 177, 10, 19, 2], [1, 40], [2] * 52, [1, 1, 1]])
def test_held_out_examples_leave_one_of_every_class(counts):
  labels = np.random.default_rng(1).permutation(np.repeat(np.arange(len(counts)), counts))
  kept, held_out = splits.hold_out(labels, 0.2, seed=0)
  assert set(labels[kept]) == set(labels)
  if max(counts) == 1:
    np.testing.assert_array_equal(kept, held_out)
    return
  np.testing.assert_array_equal(np.sort(np.concatenate([kept, held_out])), np.arange(len(labels)))
  assert len(held_out) == round(0.2 * len(labels))
  found = np.bincount(labels[held_out], minlength=len(counts))
  assert all(abs(part - 0.2 * count) < 1 for part, count in zip(found, counts, strict=True))


def test_more_than_can_be_spared_is_all_that_can_be_spared():
  kept, held_out = splits.hold_out(np.array([0, 0, 1, 1]), 0.9, seed=0)
  assert len(kept) == len(held_out) == 2
