"""Sets of the TFDS catalog by name, on builders of our own."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from research.data import catalog
from research.data.source import Source
from research.errors import ConfigError, DataError


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  with pytest.MonkeyPatch.context() as patch:
    patch.syspath_prepend(Path(__file__).parent)
    patch.setenv('no_proxy', '*')
    __import__('tiny_catalogue')
    patch.setattr('tensorflow_datasets.core.download.downloader.MAX_RETRIES', 0)
    yield str(tmp_path_factory.mktemp('catalog'))


def test_rows_by_number_decoded_and_stacked(folder):
  examples = catalog.tfds_examples('tiny_images', 'train', data_dir=folder)
  rows = examples.rows(Source(examples, 8).indices(3))
  assert rows['inputs'].shape == (8, 4, 4, 1) and rows['inputs'].dtype == np.uint8
  assert rows['targets'].dtype == np.int32
  np.testing.assert_array_equal(rows['inputs'][:, 0, 0, 0] % 3, rows['targets'])
  one = examples.rows(np.array([5]))['inputs']
  np.testing.assert_array_equal(examples.rows(np.array([5, 5]))['inputs'], np.repeat(one, 2, axis=0))
  assert any(Path(folder).iterdir())  # where it was prepared


def test_features_by_name(folder):
  examples = catalog.tfds_examples('tiny_images', 'train', targets='weight', data_dir=folder)
  rows = examples.rows(np.arange(4))
  np.testing.assert_array_equal(rows['targets'], rows['inputs'][:, 0, 0, 0] / 2)
  with pytest.raises(ConfigError, match="inputs: tiny_images has no feature 'pixels'.*image, label, weight"):
    catalog.tfds_examples('tiny_images', 'train', inputs='pixels', data_dir=folder)
  with pytest.raises(ConfigError, match='inputs: tiny_three_parts has no supervised pair'):
    catalog.tfds_examples('tiny_three_parts', 'train', data_dir=folder)


def numbers(examples) -> list[int]:
  return sorted(catalog.in_memory(examples, chunk=7).arrays['inputs'][:, 0, 0, 0].tolist())


def test_parts_are_disjoint_and_complete(folder):
  data = catalog.dataset('tiny_images', validation=0.25, data_dir=folder)
  assert [len(part) for part in data[:3]] == [30, 10, 10]
  assert sorted(numbers(data.train) + numbers(data.validation)) == list(range(40))
  assert numbers(data.test) == list(range(100, 110))
  assert data.class_names == ('zero', 'one', 'two')


@pytest.mark.parametrize('validation', [-0.1, 1.0])
def test_a_part_that_leaves_nothing_to_train_on_is_refused(folder, validation):
  with pytest.raises(ConfigError, match=f'validation={validation}'):
    catalog.dataset('tiny_images', validation, data_dir=folder)


def test_a_validation_split_of_the_set_is_used(folder):
  data = catalog.dataset('tiny_three_parts', inputs='image', targets='label', data_dir=folder)
  assert numbers(data.train) == list(range(40)) and numbers(data.validation) == list(range(200, 207))


def test_in_memory_keeps_order_and_all(folder):
  examples = catalog.tfds_examples('tiny_images', 'train', data_dir=folder)
  arrays = catalog.in_memory(examples, chunk=9)
  assert len(arrays) == 40
  for name, array in examples.rows(np.arange(40)).items():
    np.testing.assert_array_equal(arrays.arrays[name], array)


def test_fingerprints_tell_splits_and_features_apart(folder):
  variants = [{'split': 'train'}, {'split': 'test'}, {'split': 'train[:10]'}, {'split': 'train', 'targets': 'weight'}]
  prints = [catalog.tfds_examples('tiny_images', data_dir=folder, **variant).fingerprint() for variant in variants]
  assert len(set(prints)) == 4
  assert prints[0] == catalog.tfds_examples('tiny_images', 'train', data_dir=folder).fingerprint()


def test_examples_of_several_shapes(folder):
  examples = catalog.tfds_examples('tiny_ragged', 'train', data_dir=folder)
  with pytest.raises(DataError, match='image differs in shape'):
    examples.rows(np.arange(10))


@pytest.mark.parametrize(
  'name, split, message',
  [('tiny_image', 'train', 'nearest: tiny_images'), ('tiny_images', 'dev', "'dev'.*train")],
)
def test_names_that_do_not_exist(folder, name, split, message):
  with pytest.raises(ConfigError, match=message):
    catalog.tfds_examples(name, split, data_dir=folder)


def test_no_network_says_what_to_do(folder):
  with pytest.raises(DataError, match='tiny_remote: .*refused.*without a network.*data_dir') as caught:
    catalog.tfds_examples('tiny_remote', 'train', data_dir=folder)
  assert '\n' not in str(caught.value)


@pytest.mark.skipif(importlib.util.find_spec('tensorflow') is not None, reason='only where TensorFlow is missing')
def test_a_set_that_needs_tensorflow_says_what_to_do(folder):
  for _ in range(2):  # what the first left behind must not be taken for a prepared set
    with pytest.raises(DataError, match="No module named 'tensorflow'.*elsewhere") as caught:
      catalog.tfds_examples('tiny_encoded', 'train', data_dir=folder)
    assert '\n' not in str(caught.value)
