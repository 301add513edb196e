"""Communication of a compiled program, parsed from its HLO text."""

import collections
import math
import re
from typing import NamedTuple

KINDS = ('all-reduce', 'all-gather', 'reduce-scatter', 'all-to-all', 'collective-permute')
_CALL = re.compile(rf'= (.+?) ({"|".join(KINDS)})(?:-start)?\(')
_SHAPE = re.compile(r'\b[a-z]+(\d+)[a-z0-9]*\[([\d,]*)\]')  # such as f32[128,10] or bf16[]


class Collective(NamedTuple):
  """All collectives of one kind in a program: their count, and the bytes of their results per device."""

  count: int
  size: int


def collectives(program: str) -> dict[str, Collective]:
  """Collectives by kind in the text of an XLA program; loop bodies count once."""
  found = collections.defaultdict(lambda: Collective(0, 0))
  for result, kind in _CALL.findall(program):
    size = sum(_bytes(int(bits), shape) for bits, shape in _SHAPE.findall(result))
    found[kind] = Collective(found[kind].count + 1, found[kind].size + size)
  return dict(found)


def _bytes(bits: int, shape: str) -> int:
  return bits * math.prod(int(size) for size in shape.split(',') if size) // 8
