"""Spoken digits, on made-up recordings in an archive like the real one."""

import hashlib
import io
import itertools
import zipfile

import numpy as np
import pytest
from scipy.io import wavfile

from research.data import speech
from research.data.files import Archive, Places
from research.data.speech import DIGITS, SPEAKERS, DigitStrings
from research.errors import ConfigError, DataError


def recording(digit: int, speaker: int, take: int) -> np.ndarray:
  """Samples that tell whose they are; longer for higher takes."""
  return np.full(40 + take, 1_000 * digit + 100 * speaker + take, np.int16)


def wav(samples: np.ndarray) -> bytes:
  file = io.BytesIO()
  wavfile.write(file, speech.RATE, samples)
  return file.getvalue()


@pytest.fixture(scope='module')
def content() -> dict[str, bytes]:
  """Files by their name in the archive, in the order of the real one: by name."""
  files = {
    f'recordings/{digit}_{name}_{take}.wav': wav(recording(digit, number, take))
    for digit in range(10)
    for number, name in enumerate(SPEAKERS)
    for take in range(50)
  }
  return dict(sorted(files.items()))


def archive_of(folder, content, top='') -> tuple[Archive, Places]:
  """The archive in the manual directory, with the sum of what it should hold."""
  with zipfile.ZipFile(folder / 'fsdd.zip', 'w') as archive:
    for name, data in {**content, 'README.md': b'hello'}.items():
      archive.writestr(top + name, data)
  whole = b''.join(wav(recording(d, s, t)) for d in range(10) for s in range(6) for t in range(50))
  sums = {speech.JOINED: hashlib.sha256(whole).hexdigest()}
  return Archive('fsdd', sums, speech.FSDD.origins), Places(folder / 'cache', folder)


@pytest.fixture
def made_up(tmp_path, content):
  return archive_of(tmp_path, content)


def takes(part) -> set[tuple[int, int, int]]:
  """Digit, speaker and take of each recording of a part, read off its samples; each must be where it says it is."""
  found = set()
  for row, length, digit, speaker in zip(
    *map(part.arrays.get, ('inputs', 'lengths', 'targets', 'speakers')), strict=True
  ):
    take = int(row[0]) - 1_000 * digit - 100 * speaker
    np.testing.assert_array_equal(row[:length], recording(digit, speaker, take))
    assert not row[length:].any()
    found.add((int(digit), int(speaker), int(take)))
  assert len(found) == len(part)
  return found


@pytest.mark.parametrize('top', ['', 'free-spoken-digit-dataset-1.0.10/'])
def test_official_split_is_by_takes(tmp_path, content, top):
  data = speech.fsdd('', 0, *archive_of(tmp_path, content, top))
  train, validation, test = map(takes, data[:3])
  every = [(digit, speaker) for digit in range(10) for speaker in range(6)]
  assert test == {(*pair, take) for pair in every for take in range(5)}
  assert validation == {(*pair, take) for pair in every for take in range(5, 10)}
  assert train == {(*pair, take) for pair in every for take in range(10, 50)}
  assert data.class_names == DIGITS and data.train.arrays['inputs'].dtype == np.int16


def test_a_speaker_who_is_left_out_is_tested_on_alone(made_up):
  train, validation, test = map(takes, speech.fsdd('lucas', 0, *made_up)[:3])
  assert test == {(digit, 2, take) for digit in range(10) for take in range(50)}
  assert {speaker for _, speaker, _ in train | validation} == {0, 1, 3, 4, 5}
  assert {take for _, _, take in validation} == set(range(5, 10)) and not train & validation
  assert len(train) + len(validation) == 2_500


def test_long_recordings_are_cut(made_up):
  data = speech.fsdd('', 50, *made_up)
  assert data.train.arrays['inputs'].shape == (2_400, 50) and data.train.arrays['lengths'].max() == 50
  assert data.test.arrays['lengths'].tolist() == [40, 41, 42, 43, 44] * 60


def test_what_cannot_be_meant_is_refused(made_up):
  with pytest.raises(ConfigError, match="speaker='ludwig': must be one of george"):
    speech.fsdd('ludwig', 0, *made_up)
  with pytest.raises(ConfigError, match='max_length=-1'):
    speech.fsdd('', -1, *made_up)


def test_a_missing_or_changed_recording_is_told(tmp_path, content):
  without = {name: data for name, data in content.items() if name != 'recordings/3_theo_7.wav'}
  with pytest.raises(DataError, match='2999 of 3000 recordings; recordings/3_theo_7.wav is missing'):
    speech.fsdd('', 0, *archive_of(tmp_path, without))
  changed = {**content, 'recordings/3_theo_7.wav': wav(recording(3, 4, 8))}
  with pytest.raises(DataError, match='sha256'):
    speech.fsdd('', 0, *archive_of(tmp_path, changed))


@pytest.fixture(scope='module')
def voices():
  """Recordings of two digits by two speakers: constant samples that tell which it is."""
  random = np.random.default_rng(0)
  targets, speakers = np.repeat([3, 8], 10).astype(np.int32), np.tile([0, 1], 10).astype(np.int32)
  lengths = random.integers(20, 31, 20).astype(np.int32)
  loudness = 1_000 * (1 + targets + 10 * (speakers == 1))
  inputs = np.where(np.arange(30)[None] < lengths[:, None], loudness[:, None], 0).astype(np.int16)
  return speech.Arrays({'inputs': inputs, 'lengths': lengths, 'targets': targets, 'speakers': speakers})


def strings(voices, **options) -> DigitStrings:
  options = {'count': 500, 'seed': 0, 'part': 0, 'samples': 300, 'gap': 10, 'snr_db': (60.0, 60.0), **options}
  return DigitStrings(voices, **options)


def test_strings_are_joined_recordings_of_one_speaker_with_gaps(voices):
  rows, gaps = strings(voices).rows(np.arange(500)), []
  for row in zip(*map(rows.get, ('inputs', 'lengths', 'targets', 'target_lengths', 'speakers')), strict=True):
    samples, length, targets, count, speaker = row
    levels = np.round(samples / 1_000).astype(int)  # noise this weak is rounded away
    expected = [1 + digit + 10 * speaker for digit in targets[:count]]
    assert merged(levels[levels > 0]) == merged(expected)
    assert 20 * count <= np.count_nonzero(levels) <= 30 * count
    assert not samples[length:].any() and not targets[count:].any()
    gaps.append(length - np.count_nonzero(levels))
    assert 0 <= gaps[-1] <= 10 * (count + 1)
  counts = np.bincount(rows['target_lengths'])
  assert not counts[:3].any() and len(counts) == 8 and counts[3:].min() > 60
  assert abs(np.mean(gaps) - 5 * (rows['target_lengths'].mean() + 1)) < 2


def merged(values) -> list[int]:
  """Values without what repeats the one before."""
  return [int(value) for value, _ in itertools.groupby(values)]


def test_a_string_is_a_function_of_its_number(voices):
  rows, again = strings(voices).rows(np.array([5, 17, 5])), strings(voices).rows(np.array([17]))
  np.testing.assert_array_equal(rows['inputs'][0], rows['inputs'][2])
  np.testing.assert_array_equal(rows['inputs'][1], again['inputs'][0])
  other = strings(voices, seed=1)
  assert not np.array_equal(other.rows(np.array([17]))['inputs'], again['inputs'])
  same = strings(voices)
  assert same.fingerprint() == strings(voices).fingerprint() != other.fingerprint()
  assert len(same) == 500 and same.fingerprint() != strings(voices, gap=9).fingerprint()


def test_noise_has_the_drawn_ratio_to_the_speech(voices):
  quiet, loud = (strings(voices, snr_db=(level, level)).rows(np.arange(50)) for level in (80.0, 10.0))
  for clean, noisy, length in zip(quiet['inputs'] * 1.0, loud['inputs'] * 1.0, quiet['lengths'], strict=True):
    ratio = 10 * np.log10((clean[:length] ** 2).mean() / ((noisy - clean)[:length] ** 2).mean())
    assert abs(ratio - 10) < 2.5 and not noisy[length:].any()


def test_what_is_too_loud_is_clipped_and_does_not_wrap_around(voices):
  rows = strings(voices, snr_db=(-30.0, -30.0)).rows(np.arange(5))
  for row, length in zip(rows['inputs'], rows['lengths'], strict=True):
    assert np.isin(row[:length], (-32_768, 32_767)).mean() > 0.8


def test_strings_that_would_be_too_long_lose_their_last_digits(voices):
  rows = strings(voices, samples=140).rows(np.arange(300))
  assert rows['inputs'].shape == (300, 140) and rows['lengths'].max() <= 140
  assert rows['target_lengths'].min() >= 3 and rows['target_lengths'].max() < 7


@pytest.mark.parametrize(
  'fields, name',
  [
    ({'samples': 100}, 'samples=100: strings of 3 digits may take 130'),
    ({'digits': (0, 3)}, 'digits=0'),
    ({'digits': (4, 3)}, 'digits=3: must be a whole number of at least 4'),
    ({'gap': -1}, 'gap=-1'),
    ({'snr_db': (20.0, 10.0)}, 'snr_db=10.0: must be at least 20.0'),
    ({'snr_db': (-np.inf, 10.0)}, 'snr_db=-inf'),
  ],
)
def test_strings_that_cannot_be_made_are_refused(voices, fields, name):
  with pytest.raises(ConfigError, match=name):
    strings(voices, **fields)


@pytest.mark.parametrize('numbers, name', [((0, 0, 10), 'count=0'), ((5, 0, 1), 'held_out=1')])
def test_no_strings_to_train_or_to_test_are_refused(made_up, numbers, name):
  with pytest.raises(ConfigError, match=name):
    speech.digit_strings(*numbers, *made_up)


def test_the_fewest_strings_are_made_and_the_fewest_digits_may_fill_them(made_up, voices):
  assert [len(part) for part in speech.digit_strings(1, 0, 2, *made_up)[:3]] == [1, 1, 2]
  assert strings(voices, samples=130).rows(np.arange(3))['target_lengths'].min() >= 3


def test_strings_of_a_part_hold_recordings_of_that_part_alone(made_up, monkeypatch):
  data = speech.digit_strings(20, 3, 10, *made_up)
  assert [len(part) for part in data[:3]] == [20, 5, 10]
  assert takes(data.train.recordings) == takes(speech.fsdd('', speech.RATE, *made_up).train)
  one, other = (speech.digit_strings(20, seed, 10, *made_up) for seed in (3, 4))
  assert (
    one.test.fingerprint() == other.test.fingerprint()
    and one.validation.fingerprint() == other.validation.fingerprint()
  )
  assert one.train.fingerprint() != other.train.fingerprint()
  seen = []
  monkeypatch.setattr(DigitStrings, '__post_init__', lambda self: seen.append(takes(self.recordings)))
  speech.digit_strings(20, 3, 10, *made_up)
  assert len(seen) == 3 and not seen[0] & seen[1] and not seen[0] & seen[2] and not seen[1] & seen[2]


def test_parts_hold_other_strings(made_up):
  """With the same draws every part would say the same, by other takes: the validation part would tell of the test."""
  parts = speech.digit_strings(40, 0, 80, *made_up)[:3]
  said = [part.rows(np.arange(40)) for part in parts]
  for one, other in itertools.combinations(said, 2):
    same = (one['targets'] == other['targets']).all(1) & (one['speakers'] == other['speakers'])
    assert same.mean() < 0.1


def test_the_real_set_is_whole():
  try:
    data = speech.fsdd()
  except DataError as error:
    pytest.skip(str(error))
  assert [len(part) for part in data[:3]] == [2_400, 300, 300]
  lengths = np.concatenate([part.arrays['lengths'] for part in data[:3]])
  assert (lengths.min(), lengths.max(), lengths.sum()) == (1_148, 18_262, 10_498_424)


def test_strings_on_record_do_not_move(voices):
  rows = strings(voices, seed=3, part=1).rows(np.arange(40))
  facts = np.concatenate([np.ravel(rows[name]) for name in ('targets', 'target_lengths', 'lengths', 'speakers')])
  assert hashlib.sha256(facts.astype('<i8').tobytes()).hexdigest()[:16] == '98e3bbc764698647'
