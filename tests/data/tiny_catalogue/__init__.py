"""Sets of the TFDS catalog, small enough for a test; TFDS wants its builders inside a package."""

import numpy as np
import tensorflow_datasets as tfds

CLASSES = ('zero', 'one', 'two')


def image(number: int) -> np.ndarray:
  return np.full((4, 4, 1), number, np.uint8)


class TinyImages(tfds.core.GeneratorBasedBuilder):
  VERSION = tfds.core.Version('1.2.0')
  PAIR = ('image', 'label')
  IMAGE = tfds.features.Tensor(shape=(4, 4, 1), dtype=np.uint8, encoding='bytes')

  def _info(self):
    features = {'image': self.IMAGE, 'label': tfds.features.ClassLabel(names=CLASSES), 'weight': np.float32}
    return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features), supervised_keys=self.PAIR)

  def _split_generators(self, downloads):
    return {'train': self._generate_examples(0, 40), 'test': self._generate_examples(100, 110)}

  def _generate_examples(self, start, stop):
    for number in range(start, stop):
      yield number, {'image': image(number), 'label': number % 3, 'weight': number / 2}


class TinyThreeParts(TinyImages):
  PAIR = None

  def _split_generators(self, downloads):
    return {**super()._split_generators(downloads), 'validation': self._generate_examples(200, 207)}


class TinyRagged(TinyImages):
  IMAGE = tfds.features.Tensor(shape=(None, 4, 1), dtype=np.uint8)

  def _generate_examples(self, start, stop):
    for number, example in super()._generate_examples(start, stop):
      yield number, {**example, 'image': example['image'][: 1 + number % 3]}


class TinyRemote(TinyImages):
  def _split_generators(self, downloads):
    downloads.download('http://127.0.0.1:9/nobody-listens')


class TinyEncoded(TinyImages):
  IMAGE = tfds.features.Image(shape=(4, 4, 1))  # TFDS encodes it with TensorFlow
