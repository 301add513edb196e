"""Verses in two languages: which are pairs, and that no book is in two parts."""

import hashlib

import pytest

from research.data import bible, sword
from research.data.files import Archive, Places
from research.errors import DataError


def test_pairs_are_verses_that_have_words_in_both():
  one = {('Gen', 1, 1): 'In', ('Gen', 1, 2): '', ('Gen', 1, 3): 'And'}
  other = {('Gen', 1, 1): 'En', ('Gen', 1, 2): 'Y', ('Gen', 1, 3): '', ('Gen', 1, 4): 'Vio'}
  assert bible.aligned(one, other) == {('Gen', 1, 1): ('In', 'En')}


def test_parts_are_whole_books(monkeypatch):
  books = ('Gen', 'Judg', 'Ruth', 'Jonah', 'John', 'Jas')
  verses = {(book, chapter, 1): f'{book} {chapter}' for book in books for chapter in (1, 2)}
  monkeypatch.setattr(bible.files, 'load', lambda archive, at: {})
  monkeypatch.setattr(bible.sword, 'verses', lambda content, versification: verses)
  parts = bible.bible_en_es()
  assert [part.source for part in parts] == [
    ['Gen 1', 'Gen 2', 'Jonah 1'],  # Jonah 2 is numbered differently
    ['Judg 1', 'Judg 2', 'Jas 1', 'Jas 2'],
    ['Ruth 1', 'Ruth 2', 'John 1', 'John 2'],
  ]
  assert all(part.source == part.target for part in parts)


def test_held_out_books_are_those_of_no_other_part():
  assert not set(bible.VALIDATION) & set(bible.TEST)
  assert not {book for book, _ in bible.SHIFTED} & {*bible.VALIDATION, *bible.TEST}


def test_tables_of_sums_are_complete():
  assert set(bible.WORLD_ENGLISH_BIBLE.sha256) == set(bible.REINA_VALERA.sha256) == set(sword.FILES)


def test_a_module_that_is_none_is_named(tmp_path):
  (tmp_path / 'made_up').mkdir()
  for name in sword.FILES:
    (tmp_path / 'made_up' / name).write_bytes(b'none')
  made_up = Archive('made_up', dict.fromkeys(sword.FILES, hashlib.sha256(b'none').hexdigest()), ())
  with pytest.raises(DataError, match='made_up: ot: damaged SWORD module'):
    bible.bible_en_es(made_up, made_up, Places(tmp_path / 'cache', tmp_path))


def test_the_whole_bible_has_31077_pairs():
  try:
    parts = bible.bible_en_es()
    english, spanish = bible.read(bible.WORLD_ENGLISH_BIBLE, 'nrsva'), bible.read(bible.REINA_VALERA, 'kjv')
  except DataError as error:
    pytest.skip(str(error))
  pairs = bible.aligned(english, spanish)
  assert len(pairs) == 31_077 and pairs['John', 11, 35] == ('Jesus wept.', 'Y lloró Jesús.')
  assert [len(part.source) for part in parts] == [28_612, 726, 1_488]
  assert not any(set('<>') & set(text) for pair in pairs.values() for text in pair)
  assert not any(
    set(one.source) & set(other.source) for one, other in ((parts.train, parts.test), (parts.validation, parts.test))
  )
