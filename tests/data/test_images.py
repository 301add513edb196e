"""Builders of image sets, on tiny archives in the format of the real ones."""

import hashlib
import struct
import subprocess
import sys

import numpy as np
import pytest

from research.data import images
from research.data.files import Archive, Places
from research.errors import DataError

RANDOM = np.random.default_rng(0)
TRAIN = RANDOM.integers(0, 256, (120, 28, 28), np.uint8), np.arange(120, dtype=np.uint8) % 10
TEST = RANDOM.integers(0, 256, (20, 28, 28), np.uint8), np.arange(20, dtype=np.uint8) % 10


def idx(array: np.ndarray) -> bytes:
  return bytes([0, 0, 8, array.ndim]) + struct.pack(f'>{array.ndim}I', *array.shape) + array.tobytes()


def archive(folder, train=TRAIN, test=TEST) -> tuple[Archive, Places]:
  """A set in the manual directory, with the sums that belong to it."""
  arrays = dict(zip(images.MNIST.sha256, (*train, *test), strict=True))
  (folder / 'tiny').mkdir()
  for name, array in arrays.items():
    (folder / 'tiny' / name).write_bytes(idx(array))
  sums = {name: hashlib.sha256(idx(array)).hexdigest() for name, array in arrays.items()}
  return Archive('tiny', sums, ()), Places(folder / 'cache', folder)


@pytest.mark.parametrize('builder', [images.mnist, images.fashion_mnist])
def test_official_training_set_is_split_and_the_test_set_left_alone(tmp_path, builder):
  data = builder(*archive(tmp_path))
  assert [len(part) for part in data[:3]] == [110, 10, 20] and len(data.class_names) == 10
  assert data.train.arrays['inputs'].shape == (110, 28, 28, 1) and data.train.arrays['inputs'].dtype == np.uint8
  assert data.train.arrays['targets'].dtype == np.int32
  np.testing.assert_array_equal(np.bincount(data.validation.arrays['targets']), np.ones(10))
  pooled = np.concatenate([data.train.arrays['inputs'], data.validation.arrays['inputs']])[..., 0]
  assert sorted(map(bytes, pooled)) == sorted(map(bytes, TRAIN[0])), 'each training example in one part'
  np.testing.assert_array_equal(data.test.arrays['inputs'][..., 0], TEST[0])
  np.testing.assert_array_equal(data.test.arrays['targets'], TEST[1])


def test_the_split_of_the_training_set_is_fixed(tmp_path):
  train, chosen = images.splits.split(TRAIN[1], (110, 10), seed=0)
  data = images.mnist(*archive(tmp_path))
  np.testing.assert_array_equal(data.train.arrays['inputs'][..., 0], TRAIN[0][train])
  np.testing.assert_array_equal(data.validation.arrays['inputs'][..., 0], TRAIN[0][chosen])


def test_every_image_keeps_its_label(tmp_path):
  labels = {image.tobytes(): label for image, label in zip(*TRAIN, strict=True)}
  for part in images.mnist(*archive(tmp_path))[:2]:
    for image, label in zip(part.arrays['inputs'], part.arrays['targets'], strict=True):
      assert labels[image.tobytes()] == label


def test_labels_that_do_not_fit_the_images(tmp_path):
  for number, test in enumerate([(TEST[0], TEST[1][:-1]), (TEST[0][..., None], TEST[1])]):
    (tmp_path / str(number)).mkdir()
    with pytest.raises(DataError, match='tiny: t10k images'):
      images.mnist(*archive(tmp_path / str(number), test=test))


def test_tables_of_sums_are_complete():
  assert images.MNIST.sha256.keys() == images.FASHION_MNIST.sha256.keys()
  for set_ in (images.MNIST, images.FASHION_MNIST):
    assert len(set(map(bytes.fromhex, set_.sha256.values()))) == 4


def test_digits_are_those_of_scikit_learn_in_a_fixed_split():
  from sklearn.datasets import load_digits

  data = images.digits()
  assert [len(part) for part in data[:3]] == [1257, 180, 360]
  inputs = np.concatenate([part.arrays['inputs'] for part in data[:3]])
  assert inputs.dtype == np.uint8 and inputs.shape == (1797, 8, 8, 1) and inputs.max() == 16
  assert sorted(map(bytes, inputs)) == sorted(map(bytes, load_digits().images.astype(np.uint8)))
  assert [part.fingerprint() for part in data[:3]] == ['e38e8f0bfd7f3ec6', '148cbc298806d7f4', 'a73e82aeafcaf99c']


def test_no_set_imports_scikit_learn():
  """It takes a second, in which a run of the small sets would be half done."""
  code = 'import sys; from research.data import images; images.digits(); print({"sklearn", "jax"} & sys.modules.keys())'
  assert subprocess.run([sys.executable, '-c', code], stdout=subprocess.PIPE, check=True).stdout == b'set()\n'
