"""Tokenized sentence pairs."""

from typing import NamedTuple

import numpy as np

from research.data.examples import Arrays
from research.data.text import BytePairs
from research.errors import ConfigError, check_count

END = '<end>'  # ends a sentence, starts its translation, and pads arrays


class Pairs(NamedTuple):
  """Sentences and their translations, in order."""

  source: list[str]
  target: list[str]

  def every(self, max_count: int) -> 'Pairs':
    """At most `max_count` pairs, evenly spread; 0 is all. Raises ConfigError for a negative number."""
    check_count('max_count', max_count, at_least=0)
    step = -(-len(self.source) // max_count) if max_count else 1
    return Pairs(self.source[::step], self.target[::step])


class Splits(NamedTuple):
  """Three disjoint splits, as in `research.data.examples.Dataset`, before tokenization."""

  train: Pairs
  validation: Pairs
  test: Pairs


def shared_tokenizer(train: Pairs, vocab_size: int) -> BytePairs:
  """A byte pair tokenizer of both languages of the training split; END is token 0."""
  return BytePairs.of([*train.source, *train.target], vocab_size, (END,))


def encoded(pairs: Pairs, tokenizer: BytePairs, max_length: int = 0) -> Arrays:
  """Tokens of all pairs, or of those that fit into `max_length`, sorted by source length.

  Arrays: `inputs` and `targets` int32 [examples, length], padded with END to the longest one or
  `max_length`; `lengths` and `target_lengths` int32 [examples]. A target includes its final END.

  Raises ConfigError for a negative length, and if no pair fits.
  """
  check_count('max_length', max_length, at_least=0)
  eos_id = tokenizer.token(END)
  rows = [
    (source, np.append(target, eos_id))
    for source, target in zip(*(map(tokenizer.encode, side) for side in pairs), strict=True)
  ]
  rows = [row for row in rows if not max_length or max(map(len, row)) <= max_length]
  if not rows:
    raise ConfigError(f'max_length={max_length}: no pair of sentences is that short; increase it')
  sources, targets = zip(*sorted(rows, key=lambda row: len(row[0])), strict=True)
  inputs, lengths = _stacked(sources, max_length, eos_id)
  outputs, target_lengths = _stacked(targets, max_length, eos_id)
  return Arrays({'inputs': inputs, 'lengths': lengths, 'targets': outputs, 'target_lengths': target_lengths})


def _stacked(rows: tuple[np.ndarray, ...], max_length: int, eos_id: int) -> tuple[np.ndarray, np.ndarray]:
  """The rows [examples, length], padded with `eos_id`, and their lengths."""
  lengths = np.array([len(row) for row in rows], np.int32)
  stacked = np.full((len(rows), max_length or lengths.max()), eos_id, np.int32)
  for place, row in zip(stacked, rows, strict=True):
    place[: len(row)] = row
  return stacked, lengths
