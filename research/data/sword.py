"""Bibles in the compressed format of the SWORD project (zText): verses by book, chapter and number."""

import re
import struct
import zlib
from collections.abc import Iterator, Mapping

from research.errors import DataError

Reference = tuple[str, int, int]  # OSIS name of the book, chapter, verse
TESTAMENTS = ('ot', 'nt')
FILES = tuple(f'{testament}.{kind}' for testament in TESTAMENTS for kind in ('bzs', 'bzv', 'bzz'))

_DROPPED = re.compile(r'<(note|speaker)\b.*?</\1>', re.DOTALL)  # not part of the verse
_INLINE = re.compile(r'</?(?:w|q|seg|transChange)\b[^>]*>')  # may occur within a word; all other tags separate words
_TAG = re.compile(r'<[^>]*>')
_SPACE_BEFORE = re.compile(r'\s+(?=[,.;:?!’”)])')


def verses(content: Mapping[str, bytes], versification: str) -> dict[Reference, str]:
  """Plain text of the verses of a module, in canonical order; an empty verse is ''.

  Args:
    content: the module's files by name, those of FILES.
    versification: pysword's name of its canon; `pysword.canons` has the chapter lengths.

  Raises:
    DataError: the files do not match or are damaged.
  """
  from pysword.canons import canons  # a large table

  found = {}
  for testament in TESTAMENTS:
    try:
      texts = _texts(*(content[f'{testament}.{kind}'] for kind in ('bzs', 'bzv', 'bzz')))
    except (struct.error, zlib.error, IndexError) as error:
      raise DataError(f'{testament}: damaged SWORD module: {error}') from error
    places = list(_places(canons[versification][testament]))
    if len(places) != len(texts):
      raise DataError(f'{testament}: has {len(texts)} entries, but the canon {versification} has {len(places)}')
    found |= {place: plain(text) for place, text in zip(places, texts, strict=True) if place and text}
  return found


def plain(markup: str) -> str:
  """The words of a verse in OSIS markup: no notes, no tags, one space between words, none before a comma.

  Anything after the chapter's end, such as a glossary, is dropped; a psalm's title is part of its first verse.
  """
  verse = markup.split('<chapter eID=')[0]
  text = _TAG.sub(' ', _INLINE.sub('', _DROPPED.sub(' ', verse)))
  return _SPACE_BEFORE.sub('', ' '.join(text.split()))


def _texts(blocks: bytes, index: bytes, data: bytes) -> list[str]:
  """Every entry of a testament: an index of (block, start, length) into zlib blocks of (start, size, full size)."""
  unpacked = [zlib.decompress(data[start : start + size]) for start, size, _ in struct.iter_unpack('<III', blocks)]
  entries = struct.iter_unpack('<IIH', index)
  return [unpacked[block][start : start + size].decode() if size else '' for block, start, size in entries]


def _places(books: list) -> Iterator[Reference | None]:
  """The reference of every entry; None for the headings of module, testament, books and chapters."""
  yield from (None, None)
  for _, book, _, lengths in books:
    yield None
    for chapter, length in enumerate(lengths, start=1):
      yield None
      yield from ((book, chapter, verse) for verse in range(1, length + 1))
