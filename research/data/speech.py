"""Spoken digits: int16 waveforms [examples, samples], zero-padded, with int32 `lengths`, `targets` and `speakers`."""

import math
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from research.data import archives, files
from research.data.audio import read_wav
from research.data.examples import Arrays, Dataset, fingerprint_of
from research.data.files import Archive, Places
from research.data.origins import ZipUrl
from research.errors import ConfigError, DataError, check_count, check_range

RATE = 8_000  # samples per second
DIGITS = tuple('0123456789')
SPEAKERS = ('george', 'jackson', 'lucas', 'nicolas', 'theo', 'yweweler')
TAKES = 50  # recordings of each digit by each speaker
TEST_TAKES, VALIDATION_TAKES = range(5), range(5, 10)
JOINED = 'recordings.wavs'  # all recordings concatenated, by digit, speaker and take


@dataclass(frozen=True)
class Recordings(ZipUrl):
  """The zip archive, whose recordings are read as a single file JOINED with a single checksum."""

  def read(self, path: Path, names: Collection[str]) -> dict[str, bytes]:
    wanted = [f'recordings/{digit}_{name}_{take}.wav' for digit in DIGITS for name in SPEAKERS for take in range(TAKES)]
    found = archives.members(path, {f'{folder}{name}' for folder in ('', f'{self.folder}/') for name in wanted})
    found = {name.removeprefix(f'{self.folder}/'): data for name, data in found.items()}
    if missing := [name for name in wanted if name not in found]:
      raise DataError(f'has {len(found)} of {len(wanted)} recordings; {missing[0]} is missing')
    return {JOINED: b''.join(found[name] for name in wanted)}


FSDD = Archive(
  name='fsdd',
  sha256={JOINED: '785339f71d0b6135255dedb18ad7d4ffd064c47f58940c1489407a0e278b5322'},
  origins=(
    Recordings(
      name='fsdd',
      version='1.0.10',
      folder='free-spoken-digit-dataset-1.0.10',
      address='https://github.com/Jakobovski/free-spoken-digit-dataset/archive/refs/tags/v1.0.10.zip',
    ),
  ),
)


def fsdd(speaker: str = '', max_length: int = 0, archive: Archive = FSDD, at: Places | None = None) -> Dataset:
  """3,000 recordings of digits by six speakers at 8 kHz: 50 takes of each digit by each of them.

  Takes 0-4 are the official test split, 5-9 are for validation and 40 for training. With a `speaker`, all of theirs are
  the test split, and takes 5-9 of the other five are for validation. `max_length` truncates recordings; 0 is off.

  Source: Jackson (2016), 'Free spoken digit dataset', github.com/Jakobovski/free-spoken-digit-dataset, v1.0.10.

  Raises:
    ConfigError: unknown speaker, or a negative length.
    DataError: as `files.load` does.
  """
  if speaker and speaker not in SPEAKERS:
    raise ConfigError(f'speaker={speaker!r}: must be one of {", ".join(SPEAKERS)}, or empty for the official split')
  check_count('max_length', max_length, at_least=0)
  waveforms = [_cut(data, max_length) for data in _wavs(files.load(archive, at)[JOINED])]
  shape = len(DIGITS), len(SPEAKERS), len(waveforms) // (len(DIGITS) * len(SPEAKERS))
  digit, voice, take = (places.ravel() for places in np.indices(shape, np.int32))
  test = voice == SPEAKERS.index(speaker) if speaker else np.isin(take, TEST_TAKES)
  validation = np.isin(take, VALIDATION_TAKES) & ~test
  recordings = {**_padded(waveforms), 'targets': digit, 'speakers': voice}
  parts = (~test & ~validation, validation, test)
  return Dataset(*(Arrays({name: array[part] for name, array in recordings.items()}) for part in parts), DIGITS)


@dataclass(frozen=True)
class DigitStrings:
  """Strings of digits by one speaker, joined with gaps of silence and added noise, generated on access.

  A string is a function of `seed`, `part` and its index, so none need be stored. `rows` gives `inputs` int16 [batch,
  samples], `lengths`, `targets` int32 [batch, most digits], padded with 0, `target_lengths` and `speakers`.

  Raises ConfigError for values out of range, and if the fewest digits might not fit into `samples`.
  """

  recordings: Arrays  # of `fsdd`
  count: int
  seed: int
  part: int  # index of the split, so that splits do not share random draws
  samples: int = 48_000  # of a string; longer ones lose their last digits
  digits: tuple[int, int] = (3, 7)  # fewest and most
  gap: int = 2_400  # longest silence before, between and after digits, in samples
  snr_db: tuple[float, float] = (10.0, 30.0)  # range of the signal-to-noise ratio

  def __post_init__(self):
    fewest, most = self.digits
    check_count('digits', fewest)
    check_count('digits', most, at_least=fewest)
    for name in ('count', 'seed', 'gap'):
      check_count(name, getattr(self, name), at_least=0)
    check_range('snr_db', self.snr_db[0], above=-math.inf)
    check_range('snr_db', self.snr_db[1], at_least=self.snr_db[0])
    longest = fewest * (int(self.recordings.arrays['lengths'].max()) + self.gap) + self.gap
    if longest > self.samples:
      raise ConfigError(f'samples={self.samples}: strings of {fewest} digits may take {longest}')

  def __len__(self) -> int:
    return self.count

  def rows(self, indices: np.ndarray) -> dict[str, np.ndarray]:
    made = [self._string(int(index)) for index in indices]
    return {name: np.stack([string[name] for string in made]) for name in made[0]}

  def fingerprint(self) -> str:
    made_by = (self.count, self.seed, self.part, self.samples, self.digits, self.gap, self.snr_db)
    return fingerprint_of(f'{self.recordings.fingerprint()} {made_by}')

  def _string(self, index: int) -> dict[str, np.ndarray]:
    random, arrays = np.random.default_rng((self.seed, self.part, index)), self.recordings.arrays
    speaker = arrays['speakers'][random.integers(len(self.recordings))]
    (own,) = np.nonzero(arrays['speakers'] == speaker)
    chosen = random.choice(own, random.integers(self.digits[0], self.digits[1] + 1))
    sizes, gaps = arrays['lengths'][chosen], random.integers(0, self.gap + 1, len(chosen) + 1)
    ends = np.cumsum(sizes + gaps[:-1])
    fits = np.count_nonzero(ends + gaps[1:] <= self.samples)
    speech = np.zeros(ends[fits - 1] + gaps[fits], np.float32)
    for recording, size, end in zip(chosen[:fits], sizes, ends, strict=False):
      speech[end - size : end] = arrays['inputs'][recording, :size]
    return {
      'inputs': self._noisy(speech, random),
      'lengths': np.int32(len(speech)),
      'targets': np.pad(arrays['targets'][chosen[:fits]], (0, self.digits[1] - fits)),
      'target_lengths': np.int32(fits),
      'speakers': speaker,
    }

  def _noisy(self, speech: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """The string with white noise at a random signal-to-noise ratio, padded with silence."""
    ratio = 10 ** (random.uniform(*self.snr_db) / 10)
    std = np.sqrt(np.mean(speech**2) / ratio)
    noisy = speech + std * random.standard_normal(len(speech), np.float32)
    padded = np.zeros(self.samples, np.int16)
    padded[: len(speech)] = np.clip(np.rint(noisy), -(2**15), 2**15 - 1)
    return padded


def digit_strings(
  count: int, seed: int = 0, held_out: int = 1_000, archive: Archive = FSDD, at: Places | None = None
) -> Dataset:
  """Strings of 3 to 7 digits; those of each split use only recordings of that split.

  `count` strings are for training and depend on `seed`. The `held_out` test strings, and half as many for validation,
  are fixed. Recordings are truncated after a second. Raises ConfigError for a count below 1 or held_out below 2.
  """
  check_count('count', count)
  check_count('held_out', held_out, at_least=2)
  recorded = fsdd('', RATE, archive, at)
  made = DigitStrings(recorded.train, count, seed, part=0)
  chosen, reported = (
    _in_memory(DigitStrings(recordings, strings, seed=0, part=part))
    for part, recordings, strings in ((1, recorded.validation, held_out // 2), (2, recorded.test, held_out))
  )
  return Dataset(made, chosen, reported, DIGITS)


def _in_memory(examples: DigitStrings) -> Arrays:
  return Arrays(examples.rows(np.arange(len(examples))))


def _wavs(joined: bytes) -> list[bytes]:
  """The joined files, split by their own headers."""
  parts, start = [], 0
  while start < len(joined):
    end = start + 8 + int.from_bytes(joined[start + 4 : start + 8], 'little')
    parts.append(joined[start:end])
    start = end
  return parts


def _cut(data: bytes, max_length: int) -> np.ndarray:
  recording = read_wav(data)
  samples = np.round(recording.samples * 2.0**15).astype(np.int16)
  return samples[:max_length] if max_length else samples


def _padded(waveforms: list[np.ndarray]) -> dict[str, np.ndarray]:
  lengths = np.array([len(samples) for samples in waveforms], np.int32)
  inputs = np.zeros((len(waveforms), lengths.max()), np.int16)
  for row, samples in zip(inputs, waveforms, strict=True):
    row[: len(samples)] = samples
  return {'inputs': inputs, 'lengths': lengths}
