"""The reader of SWORD modules: the verses that pysword finds, and plain words of OSIS markup."""

import struct
import zlib

import pytest
from pysword.bible import SwordBible
from pysword.books import BibleStructure

from research.data import sword
from research.errors import DataError

VERSES = {
  ('Gen', 1, 1): '<w lemma="strong:H7225">In the</w> <w lemma="x">beginning</w>, God <note>Hebrew</note>made heaven.',
  ('Gen', 50, 26): 'So Joseph died.',
  ('Obad', 1, 21): 'Saviors will come up.<chapter eID="Obad.1"/> <div>A glossary of words.</div>',
  ('John', 11, 35): 'Jesús lloró.',
  ('Rev', 22, 21): '<note>Only a note.</note>',
}
NAMES = {'Gen': 'Genesis', 'Obad': 'Obadiah', 'John': 'John', 'Rev': 'Revelation of John'}


def module(verses=VERSES):
  """A module in the canon 'kjv' that holds `verses`, placed by pysword: one block a testament."""
  structure, content = BibleStructure('kjv', ['ot', 'nt']), {}
  for testament, entries in (('ot', 24115), ('nt', 8246)):
    places, text = [(0, 0, 0)] * entries, b''
    for (book, chapter, verse), words in verses.items():
      found = structure.ref_to_indicies([NAMES[book]], [chapter], [verse])
      if testament in found:
        (number,) = found[testament]
        places[number] = (0, len(text), len(words.encode()))
        text += words.encode()
    block = zlib.compress(text)
    content[f'{testament}.bzs'] = struct.pack('<III', 0, len(block), len(text))
    content[f'{testament}.bzv'] = b''.join(struct.pack('<IIH', *place) for place in places)
    content[f'{testament}.bzz'] = block
  return content


def test_finds_the_verses_that_pysword_finds(tmp_path):
  for name, data in module().items():
    (tmp_path / name).write_bytes(data)
  bible = SwordBible(str(tmp_path))
  found = sword.verses(module(), 'kjv')
  assert list(found) == list(VERSES)
  for (book, chapter, verse), markup in VERSES.items():
    assert bible.get([NAMES[book]], [chapter], [verse], clean=False) == markup
    assert found[book, chapter, verse] == sword.plain(markup)


@pytest.mark.parametrize(
  ('markup', 'words'),
  [
    (VERSES['Gen', 1, 1], 'In the beginning, God made heaven.'),
    (VERSES['Obad', 1, 21], 'Saviors will come up.'),
    (VERSES['Rev', 22, 21], ''),
    ('<w>God</w><note place="foot"><w>El</w></note><w>made</w> it <note>x</note>.', 'God made it.'),
    (
      '<title type="psalm">A Psalm.</title> <l level="1" sID="1"/>Hear me,<l eID="1"/><l sID="2"/>O God! ',
      'A Psalm. Hear me, O God!',
    ),
    ('<speaker>Lover</speaker><q who="x">“Arise</q>”, <transChange>my</transChange>  love', '“Arise”, my love'),
  ],
)
def test_plain_words_of_markup(markup, words):
  assert sword.plain(markup) == words


@pytest.mark.parametrize(('file', 'fault'), [('nt.bzz', 'nt: damaged SWORD module'), ('ot.bzv', 'ot: has')])
def test_damaged_files_are_named(file, fault):
  content = module()
  with pytest.raises(DataError, match=fault):
    sword.verses({**content, file: content[file][:-10]}, 'kjv')
