"""Verses of the Bible in English and Spanish, split by book."""

from collections.abc import Mapping

from research.data import files, sword
from research.data.files import Archive, Places
from research.data.origins import Debian
from research.data.pairs import Pairs, Splits
from research.errors import DataError

_SWORD = 'usr/share/sword/modules/texts/ztext'

WORLD_ENGLISH_BIBLE = Archive(
  name='bible_en',
  sha256={
    'ot.bzs': '2c16645bb829c05b20f39769e1fa23212743335143833a819f29e412c6def8ce',
    'ot.bzv': 'dbd3b762b7159c5dd4b535f75b6ab643fb62ae44f4655aff3c5098a955a1ae57',
    'ot.bzz': '4633066d3872f1a3e600d2d10e667a13cd6c32bf116ca971d3c8f288bc3ea453',
    'nt.bzs': 'bec87a360bbc6bfbcd7de513edf928ceebb428dd2baff813aebf521bb0c6cc83',
    'nt.bzv': 'bb7a522d8323ccd7be462fca4dcd53c06d966c140fe260a6295e05393d259338',
    'nt.bzz': '5429389d9331b7a86901a73afa74f32d089cae3d5bd8dfe304b11808714a69ba',
  },
  origins=(Debian('sword-text-web', '426.0', f'{_SWORD}/engWEB2015eb'),),
)

REINA_VALERA = Archive(
  name='bible_es',
  sha256={
    'ot.bzs': '0e39106ae15a29cef56feac683f8482be380536a1c456e006867f9fa94c0338e',
    'ot.bzv': '0f23b1ebff5ecdd352a64feda5bb047cba27ce3624fa7b00717f763835d96e20',
    'ot.bzz': 'daae868e179e6cc884ad2c9429a9dfaf9745d61caa6dbb9da2a8b24ec3c01337',
    'nt.bzs': 'b88dda1e9ab50d158262ab141af7823269acb19c581621683298be5b6e154d58',
    'nt.bzv': 'a9583ba1b4c66dfdd8bfb6a0b1833bdaa02f9e2cc3465c5a802cf19cbc2f2533',
    'nt.bzz': '7baf6b1e798b193315fed89d0e84e8e1a033d035316f66c78d456f5fb8c87e20',
  },
  origins=(Debian('sword-text-sparv', '2.60', f'{_SWORD}/spaRV1909eb'),),
)

# Prose and letters that no other book retells at length.
VALIDATION = ('Judg', 'Jas')
TEST = ('Ruth', 'Esth', 'Dan', 'John')

# Chapters that the two number differently, which would misalign their verses.
SHIFTED = {
  *(('Num', 13), ('Num', 30), ('1Sam', 24), ('1Kgs', 22), ('1Chr', 21), ('2Chr', 33)),
  *(('Job', 39), ('Job', 40), ('Hos', 12), ('Jonah', 2)),
}


def bible_en_es(
  english: Archive = WORLD_ENGLISH_BIBLE, spanish: Archive = REINA_VALERA, at: Places | None = None
) -> Splits:
  """English verses with their Spanish translations; the books VALIDATION and TEST are held out.

  Of the 31,077 verses that both have, those of the chapters SHIFTED are left out of the training split.
  Sources: World English Bible (2020), Reina-Valera (1909), both in the public domain.
  """
  pairs = aligned(read(english, 'nrsva', at), read(spanish, 'kjv', at))
  held_out = {**dict.fromkeys(VALIDATION, 'validation'), **dict.fromkeys(TEST, 'test')}
  parts = Splits(*(Pairs([], []) for _ in Splits._fields))
  for (book, chapter, _), (source, target) in pairs.items():
    if (book, chapter) not in SHIFTED:
      part = getattr(parts, held_out.get(book, 'train'))
      part.source.append(source)
      part.target.append(target)
  return parts


def aligned(
  one: Mapping[sword.Reference, str], other: Mapping[sword.Reference, str]
) -> dict[sword.Reference, tuple[str, str]]:
  """The verses that are nonempty in both, in the order of `other`."""
  return {place: (one[place], text) for place, text in other.items() if text and one.get(place)}


def read(archive: Archive, versification: str, at: Places | None = None) -> dict[sword.Reference, str]:
  """The verses of one Bible; raises DataError if its files are unavailable or unreadable."""
  try:
    return sword.verses(files.load(archive, at), versification)
  except DataError as error:
    raise DataError(f'{archive.name}: {error}') from error
