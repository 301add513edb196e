"""Builders of series to forecast, on made-up files in the format of the real ones."""

import hashlib
import lzma
import pickle
from types import SimpleNamespace

import numpy as np
import pytest

from research.data import forecasting
from research.data.files import Archive, Places
from research.errors import ConfigError, DataError

RANDOM = np.random.default_rng(0)
HOURS = RANDOM.normal(size=(14_500, 7))
HALF_HOURS = np.stack([RANDOM.normal(5, 1, 500), np.arange(500) % 7 < 5, RANDOM.normal(20, 5, 500)], axis=1)


def table(values: np.ndarray) -> bytes:
  lines = (f'2016-07-01 00:00:00,{",".join(map(repr, row))}' for row in values.tolist())
  return '\n'.join(['date,HUFL,HULL,MUFL,MULL,LUFL,LULL,OT', *lines, '']).encode()


def frame(values: np.ndarray) -> bytes:
  """The two blocks of a pickled frame: what lies around them is never looked at."""
  floats = bytearray(values[:, [0, 2]].T.astype('<f8').tobytes())
  integers = bytearray(np.stack([np.arange(len(values)), values[:, 1]]).astype('<i8').tobytes())
  return lzma.compress(pickle.dumps(['pandas', floats, 2, integers], protocol=5))


def place(folder, file: str, data: bytes) -> tuple[Archive, Places]:
  """A set in the manual directory, with the sum that belongs to it."""
  (folder / 'tiny').mkdir(parents=True)
  (folder / 'tiny' / file).write_bytes(data)
  return Archive('tiny', {file: hashlib.sha256(data).hexdigest()}, ()), Places(folder / 'cache', folder)


def ett(folder, values=HOURS):
  return forecasting.ett('ETTh1', 48, 24, *place(folder, 'ETTh1.csv', table(values)))


def elecdemand(folder, values=HALF_HOURS):
  return forecasting.elecdemand(48, 24, *place(folder, 'elecdemand.pkl.compress', frame(values)))


BUILDERS = {
  'ett': SimpleNamespace(build=ett, values=HOURS, ends=(8640, 11520, 14400)),
  'elecdemand': SimpleNamespace(build=elecdemand, values=HALF_HOURS, ends=(300, 400, 500)),
}


@pytest.mark.parametrize('name', BUILDERS)
def test_parts_end_where_they_should_and_hold_every_window(tmp_path, name):
  case = BUILDERS[name]
  data = case.build(tmp_path)
  train, validation, test = (np.diff((0, *case.ends)) - 23).tolist()
  assert [len(split) for split in data[:3]] == [train - 48, validation, test]
  scaled = data.train.scale.standardized(case.values)
  for split, end in zip(data[:3], case.ends, strict=True):
    np.testing.assert_array_equal(split.rows(np.array([len(split) - 1]))['targets'][0], scaled[end - 24 : end])
  np.testing.assert_array_equal(data.test.rows(np.array([0]))['inputs'][0], scaled[case.ends[1] - 48 : case.ends[1]])
  np.testing.assert_allclose(scaled[: case.ends[0]].std(axis=0), 1, rtol=1e-5)


@pytest.mark.parametrize('name', BUILDERS)
@pytest.mark.parametrize('split', [1, 2])
def test_no_past_input_target_or_scale_knows_the_future(tmp_path, name, split):
  """Other values from the middle of a later part on, shifted by a step: nothing before them changes by a bit."""
  case = BUILDERS[name]
  since = sum(case.ends[split - 1 : split + 1]) // 2
  changed = case.values.copy()
  changed[since:] = 7 * np.roll(case.values[since:], 1, axis=0) + 100
  before, after = case.build(tmp_path / 'before'), case.build(tmp_path / 'after', changed)
  np.testing.assert_array_equal(np.stack(after.train.scale), np.stack(before.train.scale))
  for number, (old, new) in enumerate(zip(before[:3], after[:3], strict=True)):
    start = case.ends[number - 1] if number else 48
    known = np.arange(np.clip(since - start - 23, 0, len(old)))  # windows that have ended by then
    for array in ('inputs', 'targets'):
      assert old.rows(known)[array].tobytes() == new.rows(known)[array].tobytes()
    assert (len(known) == len(old)) == (number < split)
    if number >= split:
      assert old.fingerprint() != new.fingerprint()
  assert (old.rows(np.array([len(old) - 1]))['targets'] != new.rows(np.array([len(old) - 1]))['targets']).all()


def test_an_unknown_series_is_told_before_anything_is_fetched(tmp_path):
  with pytest.raises(ConfigError, match="'ETTm1': must be one of ETTh1, ETTh2"):
    forecasting.ett('ETTm1', at=Places(tmp_path))


def test_columns_of_a_table_are_found_by_name():
  data = b'date,b,a\n2016-07-01 00:00:00,1,2\n2016-07-01 01:00:00,3,4\n'
  np.testing.assert_array_equal(forecasting.read_columns(data, 'x.csv', ('a', 'b')), [[2, 1], [4, 3]])
  assert forecasting.read_table(data, 'x.csv')[0] == ('b', 'a')
  quoted = data.replace(b'date,b,a', b'"Date","b","a"')
  np.testing.assert_array_equal(forecasting.read_columns(quoted, 'x.csv', ('a', 'b')), [[2, 1], [4, 3]])


@pytest.mark.parametrize(
  ('data', 'fault'),
  [
    (b'a,c\n1,2\n', 'x.csv: has no column b; must have a, b'),
    (b'a,b\n1,2\n3,nan\n', 'x.csv: row 2 is NaN, infinite'),
    (b'a,b\n1,1e300\n', 'x.csv: row 1 is NaN, infinite or too large for float32'),
    (b'a,b\n1,2\n3,4,5\n', 'x.csv: not a numeric CSV file with a header: row 2 has more fields than the header'),
    (b'a,b\n1,3.4028234663852886e38\n', 'x.csv: row 1 is NaN, infinite or too large for float32'),
    (b'a,b\n1,two\n', 'x.csv: not a numeric CSV file'),
    (b'a,b\n1,2\n#3,4\n', 'x.csv: not a numeric CSV file'),
    (b'a,b\n', 'x.csv: not a numeric CSV file with a header: it has no rows'),
    (b'\xff\xfe', 'x.csv: not a numeric CSV file'),
    (b'', 'x.csv: not a numeric CSV file with a header: it has no rows'),
  ],
)
def test_a_table_that_cannot_be_used_is_named(data, fault):
  with pytest.raises(DataError, match=fault):
    forecasting.read_columns(data, 'x.csv', ('a', 'b'))


def test_the_real_series_are_whole():
  try:
    data = forecasting.ett('ETTh1', 336, 96)
  except DataError as error:
    pytest.skip(str(error))
  assert [len(split) for split in data[:3]] == [8209, 2785, 2785]
  assert data.train.columns == ('HUFL', 'HULL', 'MUFL', 'MULL', 'LUFL', 'LULL', 'OT')
