"""TFDS datasets by name, with random access and decoding on demand."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from research.data.examples import Arrays, Dataset, Examples, fingerprint_of
from research.errors import ConfigError, DataError, alike, check_counts, check_range, shortened


@dataclass(frozen=True)
class Records:
  """Examples of one split of a TFDS dataset, decoded on access (a few thousand per second)."""

  records: Sequence[Mapping[str, np.ndarray]]
  features: Mapping[str, str]  # our array name -> TFDS feature name
  name: str  # dataset, version and split, for the fingerprint

  def __len__(self) -> int:
    return len(self.records)

  def rows(self, indices: np.ndarray) -> dict[str, np.ndarray]:
    records = self.records.__getitems__([int(index) for index in indices])
    return {name: self._stacked(records, feature) for name, feature in self.features.items()}

  def fingerprint(self) -> str:
    return fingerprint_of(f'{self.name} {len(self)} {dict(self.features)}')

  def _stacked(self, records: Sequence[Mapping[str, np.ndarray]], feature: str) -> np.ndarray:
    try:
      values = np.stack([record[feature] for record in records])
    except ValueError as error:
      raise DataError(f'{self.name}: {feature} differs in shape between examples: resize it to one shape') from error
    return values.astype(np.int32) if values.dtype == np.int64 else values


def tfds_examples(name: str, split: str, inputs: str = '', targets: str = '', data_dir: str = '') -> Records:
  """Examples of `split` (any TFDS split string, such as 'train[:10%]') of the dataset `name`.

  `inputs` and `targets` are feature names, by default the dataset's supervised pair. A dataset that is not yet in
  `data_dir` (default: ~/tensorflow_datasets) is downloaded and prepared.

  Raises:
    ConfigError: unknown dataset, split or feature.
    DataError: the dataset cannot be prepared on this machine.
  """
  source = _source(name, split, data_dir)
  info = source.dataset_info
  pair = info.supervised_keys or ('', '')
  features = {'inputs': inputs or pair[0], 'targets': targets or pair[1]}
  for field, feature in features.items():
    if feature not in info.features:
      wrong = f'no feature {feature!r}' if feature else 'no supervised pair'
      raise ConfigError(f'{field}: {name} has {wrong}: name one of {", ".join(info.features)}')
  return Records(source, features, f'{info.full_name} {split}')


def dataset(name: str, validation: float = 0.1, inputs: str = '', targets: str = '', data_dir: str = '') -> Dataset:
  """The dataset's train and test splits, and its validation split or else a fraction of the training examples.

  Raises ConfigError for a fraction that is not below 1, DataError and ConfigError as `tfds_examples` does.
  """
  check_range('validation', validation, below=1)

  def part(split: str) -> Records:
    return tfds_examples(name, split, inputs, targets, data_dir)

  train, test = part('train'), part('test')
  info = train.records.dataset_info
  label = info.features[train.features['targets']]
  class_names = tuple(getattr(label, 'names', None) or ())
  if 'validation' in info.splits:
    return Dataset(train, part('validation'), test, class_names)
  held_out = round(validation * len(train))
  return Dataset(part(f'train[{held_out}:]'), part(f'train[:{held_out}]'), test, class_names)


def in_memory(examples: Examples, chunk: int = 1024) -> Arrays:
  """The examples as in-memory arrays, decoded once, `chunk` at a time."""
  check_counts(chunk=chunk)
  starts = range(0, len(examples), chunk)
  parts = [examples.rows(np.arange(start, min(start + chunk, len(examples)))) for start in starts]
  return Arrays({name: np.concatenate([part[name] for part in parts]) for name in parts[0]})


def _source(name: str, split: str, data_dir: str) -> Sequence[Mapping[str, np.ndarray]]:
  builder = _prepared(name, data_dir)
  try:
    return builder.as_data_source(split)
  except ValueError as error:
    raise ConfigError(f'{name}: {shortened(error)}') from error


def _prepared(name: str, data_dir: str):
  """TFDS builder of the dataset; downloads and prepares it if needed."""
  import tensorflow_datasets as tfds  # takes half a second

  advice = 'prepare it elsewhere with file_format=array_record and name its folder in data_dir'
  try:
    builder = tfds.builder(name, data_dir=data_dir or None, file_format='array_record')
    builder.download_and_prepare()
    return builder
  except tfds.core.DatasetNotFoundError as error:
    near = alike(name.split('/')[0], tfds.list_builders(with_community_datasets=False))
    hint = f'nearest: {", ".join(near)}' if near else 'tfds.list_builders() names them'
    raise ConfigError(f'no dataset {name!r} in the TFDS catalog: {hint}') from error
  except ImportError as error:
    cause = str(error).strip().rpartition('\n')[2]
    raise DataError(f'{name}: cannot be prepared on this machine ({cause}): {advice}') from error
  except Exception as error:  # builders may raise anything
    raise DataError(f'{name}: {shortened(error)}: without a network, {advice}') from error
