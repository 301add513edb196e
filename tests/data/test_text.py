"""Tokenizers: what was encoded is read back, and what one text file keeps is the same tokenizer."""

import collections
import os
import subprocess
import sys

import numpy as np
import pytest

from research.data import text
from research.data.text import BytePairs, Bytes, Characters
from research.errors import ConfigError

TEXT = "ROMEO.\nBut soft!  What light—'tis the sun, the sun; señor, 太陽 \U0001f31e.\r\n\tThe sun, the sun, the sun."
TOKENIZERS = {
  'bytes': Bytes(),
  'characters': Characters.of([TEXT]),
  'byte_pairs': BytePairs.of([TEXT], 270),
  'special': BytePairs.of([TEXT], 270, ('<pad>', '<end>')),
}


@pytest.mark.parametrize('name', TOKENIZERS)
@pytest.mark.parametrize('written', ['', 'T', ' ', '\n\n', TEXT, TEXT[::-1], TEXT * 3])
def test_a_text_comes_back(name, written):
  tokenizer = TOKENIZERS[name]
  tokens = tokenizer.encode(written)
  assert tokens.dtype == np.int32 and tokens.ndim == 1 and tokenizer.decode(tokens) == written
  assert not len(tokens) or 0 <= tokens.min() <= tokens.max() < tokenizer.size
  assert tokenizer.characters()[tokens].sum() == len(written)
  assert tokenizer.characters().shape == (tokenizer.size,)


@pytest.mark.parametrize('name', TOKENIZERS)
def test_one_text_keeps_all(name):
  kept = text.from_json(TOKENIZERS[name].to_json())
  assert kept == TOKENIZERS[name]
  np.testing.assert_array_equal(kept.encode(TEXT), TOKENIZERS[name].encode(TEXT))


def test_bytes_are_those_of_utf8():
  assert Bytes().encode('aé').tolist() == [97, 195, 169]
  assert Bytes().decode([97, 195]) == 'a\ufffd'


def test_characters_are_sorted_and_an_unknown_one_is_an_error():
  tokenizer = Characters.of(['cab', 'bad'])
  assert tokenizer.alphabet == 'abcd' and tokenizer.encode('dab').tolist() == [3, 0, 1]
  for unknown in ('e', 'é', '\U0001f31e', 'A'):
    with pytest.raises(ConfigError, match=f"not in the vocabulary: '{unknown}'; the vocabulary is 'abcd'"):
      tokenizer.encode(f'a{unknown}b')
  with pytest.raises(ConfigError, match="not in the vocabulary: '0', '1', '2', '3', '4'; the"):  # the first five
    tokenizer.encode('a6543210b')


def test_the_first_merge_is_the_commonest_pair_within_words():
  pairs = collections.Counter(pair for word in TEXT.split() for pair in zip(word, word[1:], strict=False))
  pairs.update((' ', word[0]) for word in TEXT.split()[1:])
  tokenizer = BytePairs.of([TEXT], 257)
  (merged,) = (tokenizer.decode([token]) for token in range(tokenizer.size) if tokenizer.characters()[token] == 2)
  assert pairs[tuple(merged)] == max(pairs.values())


def test_special_tokens_come_first_and_are_in_no_text():
  tokenizer = TOKENIZERS['special']
  assert [tokenizer.token(name) for name in ('<pad>', '<end>')] == [0, 1]
  tokens = tokenizer.encode('the <pad>')
  assert 0 not in tokens and tokenizer.decode(tokens) == 'the <pad>'
  assert tokenizer.decode([*tokens, 1, 0]) == 'the <pad>' and tokenizer.characters()[:2].sum() == 0


def test_byte_pairs_are_the_same_in_any_process():
  code = f'from research.data.text import BytePairs; print(BytePairs.of([{TEXT!r}, {TEXT[::-1]!r}], 300).to_json())'
  command = [sys.executable, '-c', code]
  runs = [
    subprocess.run(command, env={**os.environ, 'PYTHONHASHSEED': seed}, capture_output=True, check=True).stdout
    for seed in ('1', '2')
  ]
  assert runs[0] == runs[1]
  assert text.from_json(runs[0].decode()) == BytePairs.of([TEXT, TEXT[::-1]], 300)


@pytest.mark.parametrize(
  'kept',
  [
    '',
    '{',
    '[]',
    '{}',
    '{"kind": "words"}',
    '{"kind": "bytes", "size": 3}',
    '{"kind": "byte_pairs", "model": "{}"}',
    '{"kind": "byte_pairs", "model": 3}',
    '{"kind": "characters", "alphabet": 3}',
    '{"kind": "characters", "alphabet": ""}',
    '{"kind": "characters", "alphabet": "ba"}',
    '{"kind": "characters", "alphabet": ["a", "b"]}',
  ],
)
def test_text_that_is_not_a_tokenizer_is_an_error(kept):
  with pytest.raises(ConfigError, match=r'^tokenizer: was not written by to_json: '):
    text.from_json(kept)


def test_what_no_tokenizer_can_be():
  with pytest.raises(ConfigError, match='vocab_size=100: must be at least 258'):
    BytePairs.of([TEXT], 100, ('<pad>', '<end>'))
  assert BytePairs.of([TEXT], 258, ('<pad>', '<end>')).size == 258
  with pytest.raises(ConfigError, match="tokenizer='words': must be bytes, characters or byte_pairs"):
    text.make_tokenizer('words', [TEXT])


def test_each_kind_is_trained_on_the_texts():
  assert text.make_tokenizer('characters', ['ab', 'c']) == Characters('abc')
  assert text.make_tokenizer('bytes', []) == Bytes()
  assert text.make_tokenizer('byte_pairs', [TEXT], 270) == TOKENIZERS['byte_pairs']
