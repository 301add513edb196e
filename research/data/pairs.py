"""Sentences in two languages as tokens."""

from typing import NamedTuple

import numpy as np

from research.data.examples import Arrays
from research.data.text import BytePairs
from research.errors import ConfigError, check_count

END = '<end>'  # ends a sentence, begins its translation, and fills what is left of an array


class Pairs(NamedTuple):
  """Sentences and their translations, one after another."""

  source: list[str]
  target: list[str]

  def every(self, most: int) -> 'Pairs':
    """At most `most` of them, evenly spread over all; 0 is all. Raises ConfigError for a negative number."""
    check_count('most', most, least=0)
    step = -(-len(self.source) // most) if most else 1
    return Pairs(self.source[::step], self.target[::step])


class Parts(NamedTuple):
  """Three disjoint parts, as those of `research.data.examples.Dataset`, still in words."""

  train: Pairs
  validation: Pairs
  test: Pairs


def shared_tokenizer(train: Pairs, vocabulary: int) -> BytePairs:
  """Byte pairs of both languages of the training part, and END, which has the number 0."""
  return BytePairs.of([*train.source, *train.target], vocabulary, (END,))


def encoded(pairs: Pairs, tokenizer: BytePairs, longest: int = 0) -> Arrays:
  """Tokens of all pairs, or of those that both fit into `longest`, the shorter sources first.

  Arrays: `inputs` and `targets` int32 [examples, length], filled with END, each length that of the longest one
  or `longest`; `lengths` and `target_lengths` int32 [examples]. A target ends with END, which counts.

  Raises ConfigError for a negative length, and where nothing fits.
  """
  check_count('longest', longest, least=0)
  end = tokenizer.token(END)
  rows = [
    (source, np.append(target, end))
    for source, target in zip(*(map(tokenizer.encode, side) for side in pairs), strict=True)
  ]
  rows = [row for row in rows if not longest or max(map(len, row)) <= longest]
  if not rows:
    raise ConfigError(f'longest={longest}: no pair of sentences is as short as that; give more')
  sources, targets = zip(*sorted(rows, key=lambda row: len(row[0])), strict=True)
  inputs, lengths = _stacked(sources, longest, end)
  outputs, target_lengths = _stacked(targets, longest, end)
  return Arrays({'inputs': inputs, 'lengths': lengths, 'targets': outputs, 'target_lengths': target_lengths})


def _stacked(rows: tuple[np.ndarray, ...], longest: int, end: int) -> tuple[np.ndarray, np.ndarray]:
  """The rows [examples, length], `end` after each, and their lengths."""
  lengths = np.array([len(row) for row in rows], np.int32)
  stacked = np.full((len(rows), longest or lengths.max()), end, np.int32)
  for place, row in zip(stacked, rows, strict=True):
    place[: len(row)] = row
  return stacked, lengths
