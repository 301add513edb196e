"""The same steps in Keras 3 on JAX, with `fit`; layers have our names, for copying weights."""

import itertools
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import keras
import numpy as np
from keras import layers

from benchmarks.families import Family


def mlp(inputs: int, hidden_sizes: Sequence[int], num_classes: int) -> keras.Model:
  hidden = [layers.Dense(width, 'relu', name=f'dense_{number}') for number, width in enumerate(hidden_sizes)]
  return keras.Sequential([keras.Input((inputs,)), *hidden, layers.Dense(num_classes, name='head')])


def cnn(size: int, channels: Sequence[int], hidden_size: int, num_classes: int) -> keras.Model:
  x = inputs = keras.Input((size, size, 1))
  for number, count in enumerate(channels):
    x = layers.MaxPooling2D()(layers.Conv2D(count, 3, padding='same', activation='relu', name=f'conv_{number}')(x))
  x = layers.Dense(hidden_size, 'relu', name='dense_0')(layers.Flatten()(x))
  return keras.Model(inputs, layers.Dense(num_classes, name='head')(x))


def resnet(size: int, depth: int, num_classes: int, norm: str) -> keras.Model:
  x = inputs = keras.Input((size, size, 3))
  x, number = layers.ReLU()(_convolved(x, 'stem_conv', 'stem_norm', norm, 16, 3)), itertools.count()
  for stage, channels in enumerate((16, 32, 64)):
    for place in range((depth - 2) // 6):
      x = _block(x, f'block_{next(number)}.', norm, channels, 2 if stage and not place else 1)
  return keras.Model(inputs, layers.Dense(num_classes, name='head')(layers.GlobalAveragePooling2D()(x)))


def _block(x, name: str, norm: str, channels: int, stride: int):
  y = layers.ReLU()(_convolved(x, name + 'conv_0', name + 'norm_0', norm, channels, 3, stride))
  y = _convolved(y, name + 'conv_1', name + 'norm_1', norm, channels, 3)
  if x.shape != y.shape:
    x = _convolved(x, name + 'shortcut', name + 'shortcut_norm', norm, channels, 1, stride)
  return layers.ReLU()(layers.Add()([x, y]))


def _convolved(x, conv_name: str, norm_name: str, norm: str, channels: int, kernel: int, stride: int = 1):
  """Convolution and norm; with a stride, `same` would pad one side only."""
  if stride > 1 and kernel > 1:
    x = layers.ZeroPadding2D(kernel // 2)(x)
  padding = 'same' if stride == 1 else 'valid'
  x = layers.Conv2D(channels, kernel, stride, padding, use_bias=False, name=conv_name)(x)
  if norm == 'batch':
    return layers.BatchNormalization(momentum=0.9, epsilon=1e-5, name=norm_name)(x)
  return layers.GroupNormalization(channels // 16, epsilon=1e-5, name=norm_name)(x)


def language_model(cell: str, vocab_size: int, hidden_size: int) -> keras.Model:
  layer = {'lstm': layers.LSTM, 'gru': layers.GRU}[cell](hidden_size, return_sequences=True, name='rnn.forward_0')
  embed, head = layers.Embedding(vocab_size, hidden_size, name='embed'), layers.Dense(vocab_size, name='head')
  return keras.Sequential([keras.Input((None,), dtype='int32'), embed, layer, head])


class Positions(layers.Layer):
  """Adds a learned vector to each position."""

  def build(self, shape):
    self.positions = self.add_weight(shape=shape[1:], name='positions')

  def call(self, x):
    return x + self.positions


def gpt(vocab_size: int, num_layers: int, embed_dim: int, num_heads: int, max_length: int) -> keras.Model:
  tokens = keras.Input((max_length,), dtype='int32')
  x = Positions(name='positions')(layers.Embedding(vocab_size, embed_dim, name='embed')(tokens))
  for number in range(num_layers):
    x = _gpt_block(x, f'block_{number}.', num_heads)
  x = layers.LayerNormalization(epsilon=1e-6, name='norm')(x)
  return keras.Model(tokens, layers.Dense(vocab_size, name='head')(x))


def _gpt_block(x, name: str, num_heads: int):
  embed_dim = x.shape[-1]
  y = layers.LayerNormalization(epsilon=1e-6, name=name + 'attention_norm')(x)
  attention = layers.MultiHeadAttention(num_heads, embed_dim // num_heads, name=name + 'attention')
  x = layers.Add()([x, attention(y, y, use_causal_mask=True)])
  y = layers.LayerNormalization(epsilon=1e-6, name=name + 'mlp_norm')(x)
  y = layers.Dense(4 * embed_dim, lambda x: keras.activations.gelu(x, approximate=True), name=name + 'up')(y)
  return layers.Add()([x, layers.Dense(embed_dim, name=name + 'down')(y)])


def generator(noise: int, channels: tuple[int, int]) -> keras.Model:
  first, second = channels
  inputs = keras.Input((noise,))
  x = layers.Dense(49 * first, use_bias=False, name='project')(inputs)
  x = layers.ReLU()(_batch_normalized(layers.Reshape((7, 7, first))(x), 'norm_0'))
  x = layers.Conv2DTranspose(second, 4, 2, 'same', use_bias=False, name='deconv_0')(x)
  x = layers.ReLU()(_batch_normalized(x, 'norm_1'))
  return keras.Model(inputs, layers.Conv2DTranspose(1, 4, 2, 'same', activation='tanh', name='deconv_1')(x))


def _batch_normalized(x, name: str):
  return layers.BatchNormalization(momentum=0.9, epsilon=1e-5, name=name)(x)


def steps(family: Family, weights: Path) -> Callable[[int], float]:
  """Function that runs a number of steps, an epoch of `fit`, and returns their mean loss."""
  batch, model = family.batch(), family.build(sys.modules[__name__])
  load(model, dict(np.load(weights)))
  loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
  if not np.issubdtype(batch['targets'].dtype, np.integer):
    loss = keras.losses.MeanSquaredError()
  model.compile(keras.optimizers.Adam(1e-3, epsilon=1e-8), loss, jit_compile=True)

  def run(steps: int) -> float:
    batches = ((batch['inputs'], batch['targets']) for _ in range(steps))
    return model.fit(batches, steps_per_epoch=steps, verbose=0).history['loss'][0]

  return run


def load(model: keras.Model, weights: dict[str, np.ndarray]) -> None:
  """Copies our parameters to the model. Raises KeyError or ValueError if they do not match."""
  left = dict(weights)
  for layer in model.layers:
    if layer.trainable_weights:
      arrays = _arrays(layer, layer.name.replace('.', '/'), left)
      layer.set_weights([*arrays, *layer.get_weights()[len(arrays) :]])  # followed by batch norm statistics
  if left:
    raise ValueError(f'parameters that Keras has no place for: {", ".join(left)}')


def _arrays(layer: layers.Layer, path: str, left: dict[str, np.ndarray]) -> list[np.ndarray]:
  """Values of a layer's weights in order, popped from ours that are `left`."""

  def ours(*leaves: str) -> list[np.ndarray]:
    return [left.pop(f'{path}/{leaf}') for leaf in leaves]

  match layer:
    case layers.Conv2DTranspose():  # Keras's is the gradient of a convolution, ours a convolution of dilated inputs
      (kernel,) = ours('kernel')
      return [kernel[::-1, ::-1].swapaxes(2, 3), *ours(*['bias'] * layer.use_bias)]
    case layers.Dense() | layers.Conv2D():
      return ours('kernel', *['bias'] * layer.use_bias)
    case layers.BatchNormalization() | layers.GroupNormalization() | layers.LayerNormalization():
      return ours('scale', 'bias')
    case layers.Embedding():
      return ours('embedding')
    case layers.LSTM():
      return ours('input/kernel', 'recurrent', 'input/bias')
    case layers.GRU():
      return _gru(*ours('input/kernel', 'recurrent', 'input/bias', 'recurrent_bias'))
    case layers.MultiHeadAttention():
      return _attention(layer, path.removesuffix('attention'), left)
  return [left.pop(path)]


def _gru(kernel: np.ndarray, recurrent: np.ndarray, bias: np.ndarray, within: np.ndarray) -> list[np.ndarray]:
  """Keras has the update gate before the reset gate, and a second bias, used only for the candidate state."""

  def ordered(array: np.ndarray) -> np.ndarray:
    reset, update, new = np.split(array, 3, -1)
    return np.concatenate([update, reset, new], -1)

  second = np.concatenate([np.zeros_like(within), np.zeros_like(within), within])
  return [ordered(kernel), ordered(recurrent), np.stack([ordered(bias), second])]


def _attention(layer: layers.MultiHeadAttention, block: str, left: dict[str, np.ndarray]) -> list[np.ndarray]:
  """Separate layers for queries, keys and values, with a head axis."""
  kernels, biases = (np.split(left.pop(f'{block}qkv/{leaf}'), 3, -1) for leaf in ('kernel', 'bias'))
  pairs = [array for pair in zip(kernels, biases, strict=True) for array in pair]
  arrays = [*pairs, left.pop(f'{block}out/kernel'), left.pop(f'{block}out/bias')]
  return [array.reshape(weight.shape) for array, weight in zip(arrays, layer.get_weights(), strict=True)]
