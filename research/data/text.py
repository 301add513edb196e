"""Tokenizers of bytes, characters and byte pairs, each saved as one text file.

Encoding is lossless. A character without a token is an error, which only `Characters` can raise.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple, Protocol

import numpy as np
from tokenizers import Tokenizer as Model
from tokenizers import decoders, models, pre_tokenizers, trainers

from research.errors import ConfigError

BYTES = 256  # each byte is a token of bytes and byte pairs


class Corpus(NamedTuple):
  """Three disjoint splits of a collection of texts, by name."""

  train: Mapping[str, str]
  validation: Mapping[str, str]
  test: Mapping[str, str]


class Tokenizer(Protocol):
  """Converts texts to tokens from 0 to `size` - 1 and back."""

  @property
  def size(self) -> int: ...

  def encode(self, text: str) -> np.ndarray:
    """Tokens int32 [length]; raises ConfigError for a character without a token."""
    ...

  def decode(self, tokens: Sequence[int] | np.ndarray) -> str:
    """The text of tokens [length]; invalid UTF-8 becomes U+FFFD."""
    ...

  def characters(self) -> np.ndarray:
    """Number of characters of each token: float32 [size]. They sum to the length of a text."""
    ...

  def to_json(self) -> str:
    """The tokenizer as text, for `from_json`."""
    ...


@dataclass(frozen=True)
class Bytes:
  """A token is a byte of UTF-8."""

  @property
  def size(self) -> int:
    return BYTES

  def encode(self, text: str) -> np.ndarray:
    return np.frombuffer(text.encode(), np.uint8).astype(np.int32)

  def decode(self, tokens: Sequence[int] | np.ndarray) -> str:
    return bytes(np.asarray(tokens, np.uint8)).decode(errors='replace')

  def characters(self) -> np.ndarray:
    return _characters(bytes([byte]) for byte in range(BYTES))

  def to_json(self) -> str:
    return json.dumps({'kind': 'bytes'})


@dataclass(frozen=True)
class Characters:
  """A token is a character of the sorted `alphabet`."""

  alphabet: str

  def __post_init__(self):
    if not self.alphabet or self.alphabet != ''.join(sorted(set(self.alphabet))):
      raise ConfigError(f'alphabet={self.alphabet!r}: must be sorted characters without duplicates')

  @classmethod
  def of(cls, texts: Iterable[str]) -> 'Characters':
    """A tokenizer with every character of `texts`."""
    return cls(''.join(sorted(set().union(*texts))))

  @property
  def size(self) -> int:
    return len(self.alphabet)

  def encode(self, text: str) -> np.ndarray:
    if unknown := sorted(set(text) - set(self.alphabet)):
      shown = ', '.join(map(repr, unknown[:5]))
      raise ConfigError(
        f'the text has characters that are not in the vocabulary: {shown}; the vocabulary is {self.alphabet!r}'
      )
    table = np.zeros(ord(self.alphabet[-1]) + 1, np.int32)
    table[[ord(character) for character in self.alphabet]] = np.arange(self.size)
    return table[np.frombuffer(text.encode('utf-32-le'), np.uint32)]

  def decode(self, tokens: Sequence[int] | np.ndarray) -> str:
    return ''.join(self.alphabet[token] for token in tokens)

  def characters(self) -> np.ndarray:
    return np.ones(self.size, np.float32)

  def to_json(self) -> str:
    return json.dumps({'kind': 'characters', 'alphabet': self.alphabet})


@dataclass(frozen=True)
class BytePairs:
  """A token is a frequent byte string, learned by merging pairs; `model` is the JSON of `tokenizers`.

  Source: Sennrich, Haddow and Birch (2016), 'Neural machine translation of rare words with subword units'; over
  bytes as in Radford et al. (2019), so that no character is unknown.
  """

  model: str

  @classmethod
  def of(cls, texts: Iterable[str], size: int, special: Sequence[str] = ()) -> 'BytePairs':
    """A vocabulary of at most `size` tokens trained on `texts`; the `special` ones come first and are never in a text.

    Raises ConfigError for a size too small for the 256 bytes.
    """
    if size < BYTES + len(special):
      raise ConfigError(f'vocab_size={size}: must be at least {BYTES + len(special)}, with a token for every byte')
    model = Model(models.BPE())
    model.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    model.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
      vocab_size=size, special_tokens=list(special), initial_alphabet=alphabet, show_progress=False
    )
    model.train_from_iterator(texts, trainer)
    return cls(model.to_str())

  @cached_property
  def _model(self) -> Model:
    model = Model.from_str(self.model)
    model.encode_special_tokens = True  # a special token's name within a text is plain text
    return model

  @property
  def size(self) -> int:
    return self._model.get_vocab_size()

  def token(self, special: str) -> int:
    """The id of a special token."""
    return self._model.token_to_id(special)

  def encode(self, text: str) -> np.ndarray:
    return np.asarray(self._model.encode(text).ids, np.int32)

  def decode(self, tokens: Sequence[int] | np.ndarray) -> str:
    return self._model.decode(list(map(int, tokens)), skip_special_tokens=True)

  def characters(self) -> np.ndarray:
    return _characters(map(self._bytes, range(self.size)))

  def to_json(self) -> str:
    return json.dumps({'kind': 'byte_pairs', 'model': self.model})

  def _bytes(self, token: int) -> bytes:
    """The bytes of a token; empty for a special one."""
    if token in self._model.get_added_tokens_decoder():
      return b''
    return bytes(_BYTES[character] for character in self._model.id_to_token(token))


KINDS = {'bytes': Bytes, 'characters': Characters, 'byte_pairs': BytePairs}


def from_json(text: str) -> Tokenizer:
  """The tokenizer saved as `text` by `to_json`. Raises ConfigError for invalid text."""
  try:
    facts = json.loads(text)
    tokenizer = KINDS[facts.pop('kind')](**facts)
    tokenizer.encode('')  # parses the model
  except Exception as error:  # `tokenizers` raises nothing narrower
    raise ConfigError(f'tokenizer: was not written by to_json: {error!r}') from error
  return tokenizer


def make_tokenizer(kind: str, texts: Sequence[str], vocab_size: int = 0) -> Tokenizer:
  """A tokenizer of the given kind, trained on `texts`; `vocab_size` is for byte pairs.

  Raises ConfigError for an unknown kind.
  """
  match kind:
    case 'bytes':
      return Bytes()
    case 'characters':
      return Characters.of(texts)
    case 'byte_pairs':
      return BytePairs.of(texts, vocab_size)
  raise ConfigError(f'tokenizer={kind!r}: must be bytes, characters or byte_pairs')


def _characters(tokens: Iterable[bytes]) -> np.ndarray:
  """How many UTF-8 characters start in each token: the bytes other than continuation bytes 10xxxxxx."""
  return np.array([sum(byte & 0xC0 != 0x80 for byte in token) for token in tokens], np.float32)


def _byte_names() -> dict[str, int]:
  """Bytes by the character that `tokenizers` uses for each (Radford et al. 2019): itself if printable."""
  seen = [*range(33, 127), *range(161, 173), *range(174, 256)]
  unseen = [byte for byte in range(256) if byte not in seen]
  return {chr(byte): byte for byte in seen} | {chr(256 + place): byte for place, byte in enumerate(unseen)}


_BYTES = _byte_names()
