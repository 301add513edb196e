"""Sentences in two languages as arrays of tokens."""

import numpy as np
import pytest

from research.data import pairs as parallel
from research.data.pairs import END, Pairs
from research.errors import ConfigError

PAIRS = Pairs(['the sea was calm', 'a b', 'light'], ['la mar estaba en calma', 'á é', 'luz'])
TOKENIZER = parallel.shared_tokenizer(PAIRS, 270)


def test_rows_are_the_sentences_again_with_the_shorter_sources_first():
  arrays = parallel.encoded(PAIRS, TOKENIZER).arrays
  order = np.argsort([len(TOKENIZER.encode(text)) for text in PAIRS.source], kind='stable')
  for name, side, end in (('inputs', 'source', 0), ('targets', 'target', 1)):
    lengths = arrays['lengths' if name == 'inputs' else 'target_lengths']
    assert arrays[name].dtype == lengths.dtype == np.int32 and arrays[name].shape == (3, lengths.max())
    for row, length, number in zip(arrays[name], lengths, order, strict=True):
      assert TOKENIZER.decode(row[: length - end]) == getattr(PAIRS, side)[number]
      assert (row[length - end :] == TOKENIZER.token(END)).all() and TOKENIZER.decode(row) == getattr(PAIRS, side)[
        number
      ]


def test_the_number_of_the_end_is_0_and_no_text_has_it():
  assert TOKENIZER.token(END) == 0
  assert 0 not in TOKENIZER.encode(f'the {END}')


def test_pairs_that_do_not_fit_are_left_out_on_either_side():
  lengths = [max(len(TOKENIZER.encode(s)), len(TOKENIZER.encode(t)) + 1) for s, t in zip(*PAIRS, strict=True)]
  max_length = sorted(lengths)[1]
  arrays = parallel.encoded(PAIRS, TOKENIZER, max_length).arrays
  assert arrays['inputs'].shape == arrays['targets'].shape == (sum(n <= max_length for n in lengths), max_length)
  with pytest.raises(ConfigError, match='max_length=1: no pair'):
    parallel.encoded(PAIRS, TOKENIZER, 1)


def test_the_tokenizer_knows_the_training_part_alone():
  other = Pairs([*PAIRS.source, 'zebra ' * 50], [*PAIRS.target, 'cebra ' * 50])
  assert parallel.shared_tokenizer(other, 270).model != TOKENIZER.model
  assert parallel.shared_tokenizer(PAIRS, 270).model == TOKENIZER.model


def test_negative_numbers_are_refused():
  with pytest.raises(ConfigError, match='max_length=-1'):
    parallel.encoded(PAIRS, TOKENIZER, -1)
  with pytest.raises(ConfigError, match='max_count=-1'):
    PAIRS.every(-1)


def test_some_of_the_pairs_are_evenly_spread():
  pairs = Pairs(list('abcdefgh'), list('ABCDEFGH'))
  assert pairs.every(3) == Pairs(['a', 'd', 'g'], ['A', 'D', 'G'])
  assert pairs.every(0) == pairs == pairs.every(100)
