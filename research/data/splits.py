"""Disjoint, stratified splits of a dataset, fixed by a seed."""

from collections.abc import Sequence

import numpy as np

from research.errors import ConfigError, check_count, check_range


def stratified_order(labels: np.ndarray, seed: int) -> np.ndarray:
  """A permutation of the examples in which every contiguous range has the class proportions.

  An example of rank r among the n of its class, in random order, goes to position (r + 1/2) / n, so the count of a
  class in a range is off by at most one or two. A single class gives a plain permutation.
  """
  check_count('seed', seed, at_least=0)
  order = np.random.default_rng(seed).permutation(len(labels))
  place = np.empty(len(labels))
  for label in np.unique(labels):
    (positions,) = np.nonzero(labels[order] == label)
    place[positions] = (np.arange(len(positions)) + 0.5) / len(positions)
  return order[np.argsort(place, kind='stable')]


def split(labels: np.ndarray, sizes: Sequence[int], seed: int) -> list[np.ndarray]:
  """Stratified splits of the given sizes, each a sorted array of example indices."""
  if sum(sizes) != len(labels) or min(sizes) < 0:
    raise ConfigError(f'sizes={tuple(sizes)}: must be non-negative and add up to the {len(labels)} examples')
  return [np.sort(part) for part in np.split(stratified_order(labels, seed), np.cumsum(sizes)[:-1])]


def hold_out(labels: np.ndarray, fraction: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
  """The kept examples and a held-out, stratified `fraction`; every class keeps at least one example.

  If no class has two, the kept examples are returned twice. Raises ConfigError for a fraction that is not below 1.
  """
  check_range('fraction', fraction, below=1)
  order = stratified_order(labels, seed)
  _, first = np.unique(labels[order], return_index=True)
  spare = np.delete(order, first)
  held_out = spare[max(len(spare) - round(fraction * len(labels)), 0) :]
  kept = np.setdiff1d(order, held_out)
  return kept, np.sort(held_out) if len(held_out) else kept


def cross_validation(
  labels: np.ndarray, fold: int, num_folds: int, seed: int, validation: float = 0.1
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Training, validation and test examples of stratified k-fold cross-validation with test fold `fold`.

  A stratified fraction `validation` of the other folds is held out for model selection.

  Raises:
    ConfigError: unknown fold, or a fraction that is not below 1.
  """
  check_count('num_folds', num_folds, at_least=2, at_most=len(labels))
  check_count('fold', fold, at_least=0, at_most=num_folds - 1)
  check_range('validation', validation, below=1)
  parts = np.array_split(stratified_order(labels, seed), num_folds)
  rest = np.sort(np.concatenate(parts[:fold] + parts[fold + 1 :]))
  held_out = round(validation * len(rest))
  train, chosen = split(labels[rest], (len(rest) - held_out, held_out), seed)
  return rest[train], rest[chosen], np.sort(parts[fold])
