"""The UCR archive's builder, on made-up files in its format."""

import hashlib
import subprocess
import sys

import numpy as np
import pytest

from research.data import ucr
from research.data.files import Archive, Places
from research.errors import ConfigError, DataError

RANDOM = np.random.default_rng(0)
LABELS = np.repeat([-1, 3, 7], [20, 9, 1])
SERIES = RANDOM.normal(5, 2, (30, 6))
TEST = np.array([7, -1, 3, 3]), RANDOM.normal(5, 2, (4, 6))
NAN = np.nan


def lines(labels, series) -> bytes:
  rows = zip(labels, series, strict=True)
  return ''.join('\t'.join([str(label), *(f'{value:.8g}' for value in row)]) + '\n' for label, row in rows).encode()


def made(folder, train=(LABELS, SERIES), test=TEST):
  """Data set of made-up parts: pairs of labels and series, or bytes."""
  parts = {'TRAIN': train, 'TEST': test}
  content = {f'Tiny_{split}.tsv': x if isinstance(x, bytes) else lines(*x) for split, x in parts.items()}
  (folder / 'ucr' / 'Tiny').mkdir(parents=True, exist_ok=True)
  for name, data in content.items():
    (folder / 'ucr' / 'Tiny' / name).write_bytes(data)
  sums = {name: hashlib.sha256(data).hexdigest() for name, data in content.items()}
  return ucr.dataset(Archive('ucr/Tiny', sums, ()), Places(folder / 'cache', folder))


def changed(series, places) -> np.ndarray:
  series = series.copy()
  for place in places:
    series[place] = NAN
  return series


def scaler(data) -> tuple[float, float]:
  """Mean and deviation that the values of TEST were scaled by."""
  (a, b), (x, y) = TEST[1][0, :2], data.test.arrays['inputs'][0, :2, 0].astype(float)
  return a - (a - b) / (x - y) * x, (a - b) / (x - y)


def test_parts_classes_and_scale(tmp_path):
  data = made(tmp_path)
  assert [len(split) for split in data[:3]] == [24, 6, 4] and data.class_names == ('-1', '3', '7')
  train, test = data.train.arrays, data.test.arrays
  assert train['inputs'].shape == (24, 6, 1) and 'lengths' not in train
  assert {array.dtype for array in train.values()} == {np.dtype('float32'), np.dtype('int32')}
  np.testing.assert_allclose([train['inputs'].mean(), train['inputs'].std()], [0, 1], atol=1e-6)
  mean, std = scaler(data)
  np.testing.assert_allclose(test['inputs'][..., 0] * std + mean, TEST[1], rtol=1e-5)
  np.testing.assert_array_equal(test['targets'], [2, 0, 1, 1])


def test_constant_series_are_only_centered(tmp_path):
  data = made(tmp_path, train=(LABELS, np.full((30, 6), 14.62)), test=(TEST[0], np.full((4, 6), 15.0)))
  np.testing.assert_allclose(data.test.arrays['inputs'], 0.38, rtol=1e-5)


def test_every_series_keeps_its_label_and_lies_in_one_part(tmp_path):
  data = made(tmp_path)
  mean, std = scaler(data)
  places = []
  for split in data[:2]:
    for series, target in zip(split.arrays['inputs'][..., 0], split.arrays['targets'], strict=True):
      (place,) = np.flatnonzero(np.isclose(SERIES, series * std + mean, atol=1e-4).all(axis=1))
      assert data.class_names[target] == str(LABELS[place])
      places.append(place)
  assert sorted(places) == list(range(30))


def test_nothing_of_the_test_part_reaches_training(tmp_path):
  """Other numbers, labels, gaps and ends in the test file change no bit of the other parts, the scaler's neither."""
  before = made(tmp_path)
  others = changed(9 * TEST[1] + 100, [(0, slice(4, None)), (1, 2)])
  after = made(tmp_path, test=(TEST[0][::-1], others))
  for old, new in zip(before[:2], after[:2], strict=True):
    assert old.arrays.keys() == new.arrays.keys()
    for name, array in old.arrays.items():
      np.testing.assert_array_equal(array, new.arrays[name])
  assert before.class_names == after.class_names and before.test.fingerprint() != after.test.fingerprint()
  np.testing.assert_allclose(
    after.test.arrays['inputs'][0, :4, 0] * scaler(before)[1] + scaler(before)[0], others[0, :4], rtol=1e-4
  )


def test_the_validation_part_does_not_reach_the_scaler(tmp_path):
  """A set whose held-out series are enlarged is scaled as before."""
  train, held_out = ucr.splits.hold_out(np.unique(LABELS, return_inverse=True)[1], ucr.VALIDATION, 0)
  larger = SERIES.copy()
  larger[held_out] *= 50
  before, after = made(tmp_path), made(tmp_path, train=(LABELS, larger))
  np.testing.assert_array_equal(before.train.arrays['inputs'], after.train.arrays['inputs'])
  np.testing.assert_array_equal(before.train.arrays['targets'], np.unique(LABELS, return_inverse=True)[1][train])


def test_series_that_end_early_have_lengths_and_zeros(tmp_path):
  ended = changed(SERIES, [(row, slice(row % 5 + 1, None)) for row in range(30)])
  data = made(tmp_path, train=(LABELS, ended))
  for split in data[:2]:
    inputs, lengths = split.arrays['inputs'][..., 0], split.arrays['lengths']
    assert lengths.dtype == np.int32 and inputs.shape[1] == 6
    after = np.arange(6) >= lengths[:, None]
    assert (inputs[after] == 0).all() and (inputs[~after] != 0).all()
  assert set(data.train.arrays['lengths']) == {1, 2, 3, 4, 5}
  assert 'lengths' not in data.test.arrays
  real = np.concatenate([x[:n, 0] for x, n in zip(*(data.train.arrays[k] for k in ('inputs', 'lengths')), strict=True)])
  np.testing.assert_allclose([real.mean(), real.std()], [0, 1], atol=1e-6, err_msg='the ends are not counted')


def test_missing_values_are_drawn_straight(tmp_path):
  """A line with a gap is that line; before the first value there is the first value."""
  lines = np.arange(6.0) * RANDOM.uniform(1, 2, (30, 1))
  whole = made(tmp_path, train=(LABELS, lines))
  gaps = changed(lines, [(slice(None, None, 2), 3), (5, slice(1, 5)), (6, slice(2, 4))])
  data = made(tmp_path, train=(LABELS, gaps))
  slopes = [np.diff(split.train.arrays['inputs'][..., 0]).astype(float) for split in (whole, data)]
  np.testing.assert_allclose(slopes[1], slopes[0] * scaler(whole)[1] / scaler(data)[1], rtol=1e-4)
  begun = made(tmp_path, train=(LABELS, changed(lines, [(slice(None), slice(0, 2))]))).train.arrays['inputs'][..., 0]
  np.testing.assert_array_equal(begun[:, :2], begun[:, 2:3].repeat(2, 1))


def test_every_class_is_trained_on(tmp_path):
  """A class of one or two examples as well; and where no class has two, the training part validates."""
  for counts in ([1, 40], [2, 2, 2, 2], [1, 1, 30, 3]):
    labels = np.repeat(np.arange(len(counts)), counts)
    data = made(tmp_path, train=(labels, RANDOM.normal(size=(len(labels), 4))), test=([0], np.ones((1, 4))))
    assert set(data.train.arrays['targets']) == set(labels)
    assert len(data.validation) == round(0.2 * len(labels)) == len(labels) - len(data.train)
  alone = made(tmp_path, train=(np.arange(5), RANDOM.normal(size=(5, 4))), test=([0], np.ones((1, 4))))
  assert len(alone.train) == len(alone.validation) == 5


@pytest.mark.parametrize(
  ('parts', 'message'),
  [
    ({'test': ([7, 9], TEST[1][:2])}, '9 is a label that only the test split has'),
    ({'test': (TEST[0], TEST[1][:, :5])}, '5 values per test series, 6 per training series'),
    ({'train': b'1\t2\tx\n'}, 'Tiny_TRAIN.tsv is not a table of numbers'),
    ({'test': b'1\t2\n1\t2\t3\n'}, 'Tiny_TEST.tsv is not a table of numbers'),
    ({'train': b''}, 'Tiny_TRAIN.tsv is empty'),
    ({'test': b'1\n'}, 'Tiny_TEST.tsv is empty, or has a line without'),
    ({'test': (TEST[0], changed(TEST[1], [2]))}, 'Tiny_TEST.tsv is empty, or has a line without'),
  ],
)
@pytest.mark.filterwarnings('ignore:loadtxt')
def test_files_of_another_form_are_refused_in_one_line(tmp_path, parts, message):
  with pytest.raises(DataError, match=message) as caught:
    made(tmp_path, **parts)
  assert '\n' not in str(caught.value) and 'ucr/Tiny' in str(caught.value)


@pytest.mark.parametrize(('name', 'nearest'), [('ECG500', 'ECG5000'), ('forda', 'FordA'), ('Electric', 'ElectricD')])
def test_a_misspelt_name_is_answered_with_the_nearest_and_nothing_is_fetched(monkeypatch, name, nearest):
  monkeypatch.setattr(ucr.files, 'load', lambda *_: pytest.fail('fetched'))
  with pytest.raises(ConfigError, match=rf"dataset='{name}'.*nearest:.*{nearest}") as caught:
    ucr.ucr(name)
  assert len(str(caught.value).partition('nearest: ')[2].split(', ')) <= 3
  assert '\n' not in str(caught.value)


def test_every_set_of_the_list_has_two_files_with_sums_and_a_wheel():
  archives = ucr.archives()
  assert len(archives) == 93 and {'ECG5000', 'FordA', 'ElectricDevices', 'PLAID'} <= archives.keys()
  for name, archive in archives.items():
    assert archive.sha256.keys() == {f'{name}_TRAIN.tsv', f'{name}_TEST.tsv'}
    assert {len(bytes.fromhex(sum_)) for sum_ in archive.sha256.values()} == {32}
    (origin,) = archive.origins
    assert origin.folder == f'{origin.name.replace("-", "_")}/data/{name}'


def test_the_official_parts_of_ecg5000():
  try:
    data = ucr.ucr('ECG5000')
  except DataError as error:
    pytest.skip(str(error))
  assert [len(split) for split in data[:3]] == [400, 100, 4500] and len(data.class_names) == 5
  assert [split.arrays['inputs'].shape[1:] for split in data[:3]] == [(140, 1)] * 3


def test_the_list_needs_neither_jax_nor_a_network():
  code = 'import sys; from research.data import ucr; ucr.archives(); sys.exit("jax" in sys.modules)'
  assert subprocess.run([sys.executable, '-c', code], check=False).returncode == 0
