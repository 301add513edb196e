"""The same steps with Flax's own layers, as in its tutorials."""

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from flax.traverse_util import flatten_dict, unflatten_dict
from jax import Array

from benchmarks.families import Family


class MLP(nn.Module):
  hidden_sizes: Sequence[int]
  num_classes: int

  @nn.compact
  def __call__(self, x, train=False):
    for number, width in enumerate(self.hidden_sizes):
      x = nn.relu(nn.Dense(width, name=f'dense_{number}')(x))
    return nn.Dense(self.num_classes, name='head')(x)


class CNN(nn.Module):
  channels: Sequence[int]
  hidden_size: int
  num_classes: int

  @nn.compact
  def __call__(self, x, train=False):
    for number, channels in enumerate(self.channels):
      x = nn.max_pool(nn.relu(nn.Conv(channels, (3, 3), name=f'conv_{number}')(x)), (2, 2), (2, 2))
    x = nn.relu(nn.Dense(self.hidden_size, name='dense_0')(x.reshape(x.shape[0], -1)))
    return nn.Dense(self.num_classes, name='head')(x)


class Block(nn.Module):
  channels: int
  stride: int
  norm: Callable[[str], nn.Module]

  @nn.compact
  def __call__(self, x):
    y = _conv(self.channels, 3, self.stride, name='conv_0')(x)
    y = _conv(self.channels, 3, name='conv_1')(nn.relu(self.norm('norm_0')(y)))
    y = self.norm('norm_1')(y)
    if x.shape != y.shape:
      x = self.norm('shortcut_norm')(_conv(self.channels, 1, self.stride, name='shortcut')(x))
    return nn.relu(x + y)


class ResNet(nn.Module):
  depth: int
  num_classes: int
  norm: str

  @nn.compact
  def __call__(self, x, train=False):
    norm = {
      'group': lambda name: nn.GroupNorm(num_groups=None, group_size=16, epsilon=1e-5, name=name),
      'batch': lambda name: nn.BatchNorm(not train, momentum=0.9, name=name),
    }[self.norm]
    x, blocks = nn.relu(norm('stem_norm')(_conv(16, 3, name='stem_conv')(x))), (self.depth - 2) // 6
    for stage, channels in enumerate((16, 32, 64)):
      for number in range(blocks):
        x = Block(channels, 2 if stage and not number else 1, norm, name=f'block_{stage * blocks + number}')(x)
    return nn.Dense(self.num_classes, name='head')(x.mean((1, 2)))


def _conv(channels: int, kernel: int, stride: int = 1, *, name: str) -> nn.Conv:
  return nn.Conv(channels, (kernel, kernel), stride, kernel // 2, use_bias=False, name=name)


class LanguageModel(nn.Module):
  cell: str
  vocab_size: int
  hidden_size: int

  @nn.compact
  def __call__(self, tokens, train=False):
    x = nn.Embed(self.vocab_size, self.hidden_size, name='embed')(tokens)
    cell = {'lstm': nn.OptimizedLSTMCell, 'gru': nn.GRUCell}[self.cell](self.hidden_size, name='cell')
    return nn.Dense(self.vocab_size, name='head')(nn.RNN(cell)(x))


class GPT(nn.Module):
  vocab_size: int
  num_layers: int
  embed_dim: int
  num_heads: int
  max_length: int

  @nn.compact
  def __call__(self, tokens, train=False):
    x = nn.Embed(self.vocab_size, self.embed_dim, name='embed')(tokens)
    x += self.param('positions', nn.initializers.normal(0.02), (self.max_length, self.embed_dim))[None]
    for number in range(self.num_layers):
      x = GPTBlock(self.num_heads, name=f'block_{number}')(x)
    return nn.Dense(self.vocab_size, name='head')(nn.LayerNorm(name='norm')(x))


class GPTBlock(nn.Module):
  num_heads: int

  @nn.compact
  def __call__(self, x):
    y = nn.LayerNorm(name='attention_norm')(x)
    mask = nn.make_causal_mask(x[..., 0])
    x += nn.MultiHeadDotProductAttention(self.num_heads, name='attention')(y, mask=mask)
    y = nn.Dense(4 * x.shape[-1], name='up')(nn.LayerNorm(name='mlp_norm')(x))
    return x + nn.Dense(x.shape[-1], name='down')(nn.gelu(y))


class Generator(nn.Module):
  channels: tuple[int, int]

  @nn.compact
  def __call__(self, noise, train=False):
    first, second = self.channels
    x = nn.Dense(7 * 7 * first, use_bias=False, name='project')(noise).reshape(-1, 7, 7, first)
    x = nn.relu(nn.BatchNorm(not train, momentum=0.9, name='norm_0')(x))
    x = nn.ConvTranspose(second, (4, 4), (2, 2), use_bias=False, name='deconv_0')(x)
    x = nn.relu(nn.BatchNorm(not train, momentum=0.9, name='norm_1')(x))
    return jnp.tanh(nn.ConvTranspose(1, (4, 4), (2, 2), name='deconv_1')(x))


def mlp(inputs: int, hidden_sizes: Sequence[int], num_classes: int) -> MLP:
  return MLP(hidden_sizes, num_classes)


def cnn(size: int, channels: Sequence[int], hidden_size: int, num_classes: int) -> CNN:
  return CNN(channels, hidden_size, num_classes)


def resnet(size: int, depth: int, num_classes: int, norm: str) -> ResNet:
  return ResNet(depth, num_classes, norm)


language_model, gpt = LanguageModel, GPT


def generator(noise: int, channels: tuple[int, int]) -> Generator:
  return Generator(channels)


def steps(family: Family, weights: Path) -> Callable[[int], float]:
  """Function that takes a number of steps and returns the last one's loss."""
  batch, model, optimizer = jax.device_put(family.batch()), model_of(family), optax.adam(1e-3)
  variables = jax.jit(lambda inputs: model.init(jax.random.key(0), inputs))(batch['inputs'])
  params, stats = jax.device_put(loaded(variables.pop('params'), np.load(weights))), variables
  step = jax.jit(train_step(model, optimizer), donate_argnums=(0, 1, 2))
  moments = jax.jit(optimizer.init)(params)

  def run(steps: int) -> float:
    nonlocal params, stats, moments
    for _ in range(steps):
      params, stats, moments, loss = step(params, stats, moments, batch)
    return float(loss)

  return run


def train_step(model: nn.Module, optimizer: optax.GradientTransformation) -> Callable:
  """Function (params, statistics, moments, batch) -> the same three after the step, and the loss before it."""

  def step(params, stats, moments, batch):
    def loss(params):
      outputs, new = model.apply({'params': params, **stats}, batch['inputs'], train=True, mutable=['batch_stats'])
      return _loss(outputs, batch['targets']), new

    (value, stats), gradients = jax.value_and_grad(loss, has_aux=True)(params)
    updates, moments = optimizer.update(gradients, moments, params)
    return optax.apply_updates(params, updates), stats, moments, value

  return step


def abstract_step(family: Family) -> tuple[Callable, tuple]:
  """The step and the shapes of its arguments, to count what it computes."""
  model, optimizer, batch = model_of(family), optax.adam(1e-3), family.batch()
  variables = jax.eval_shape(lambda inputs: model.init(jax.random.key(0), inputs), batch['inputs'])
  params = variables.pop('params')
  return train_step(model, optimizer), (params, variables, jax.eval_shape(optimizer.init, params), batch)


def model_of(family: Family) -> nn.Module:
  """The family's model."""
  return family.build(sys.modules[__name__])


def _loss(outputs: Array, targets: Array) -> Array:
  if jnp.issubdtype(targets.dtype, jnp.integer):
    return optax.softmax_cross_entropy_with_integer_labels(outputs, targets).mean()
  return optax.squared_error(outputs, targets).mean()


def loaded(params: dict, weights: Mapping[str, np.ndarray]) -> dict:
  """`params` with the values of `weights`, which are named and shaped as ours. Raises ValueError for other names."""
  named, recurrent = {}, {}
  for path, array in weights.items():
    if path.startswith('rnn/forward_0/'):
      recurrent[path.removeprefix('rnn/forward_0/')] = array
    else:
      named |= _attention(path, array)
  named |= _gates(recurrent) if recurrent else {}
  shapes = {path: leaf.shape for path, leaf in flatten_dict(params, sep='/').items()}
  if single := sorted(named.keys() ^ shapes.keys()):
    raise ValueError(f'parameters of one library alone: {", ".join(single)}')
  return unflatten_dict({path: array.reshape(shapes[path]) for path, array in named.items()}, sep='/')


def _attention(path: str, array: np.ndarray) -> dict[str, np.ndarray]:
  """Queries, keys and values in a layer each, in a module with the one after them."""
  head, _, leaf = path.rpartition('/')
  block, _, layer = head.rpartition('/')
  if layer == 'qkv':
    parts = zip(('query', 'key', 'value'), np.split(array, 3, -1), strict=True)
    return {f'{block}/attention/{name}/{leaf}': part for name, part in parts}
  return {f'{block}/attention/out/{leaf}' if layer == 'out' else path: array}


def _gates(ours: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
  """A layer for each gate of a cell, of its input and of its state; an LSTM has its bias in the latter."""
  gates, biased = ('rzn', 'i') if 'recurrent_bias' in ours else ('ifgo', 'h')
  named = {'cell/hn/bias': ours['recurrent_bias']} if 'recurrent_bias' in ours else {}
  for kind, array in (('i{}/kernel', 'input/kernel'), ('h{}/kernel', 'recurrent'), (biased + '{}/bias', 'input/bias')):
    parts = np.split(ours[array], len(gates), -1)
    named |= {f'cell/{kind.format(gate)}': part for gate, part in zip(gates, parts, strict=True)}
  return named
