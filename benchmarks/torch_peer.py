"""The same steps in idiomatic PyTorch; layers have our names, for copying weights."""

import sys
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.families import Family


class Linear(nn.Linear):
  """A linear layer after or before images, which torch flattens channels first and we channels last.

  `reads` and `writes` are the shapes [height, width, channels] of what is flattened or made into an image.
  """

  def __init__(self, inputs: int, outputs: int, reads: Sequence[int] = (), writes: Sequence[int] = (), **options: bool):
    super().__init__(inputs, outputs, **options)
    self.reads, self.writes = reads or (1, 1, inputs), writes or (1, 1, outputs)


def mlp(inputs: int, hidden_sizes: Sequence[int], num_classes: int) -> nn.Module:
  layers = {}
  for number, (before, after) in enumerate(zip((inputs, *hidden_sizes[:-1]), hidden_sizes, strict=True)):
    layers |= {f'dense_{number}': nn.Linear(before, after), f'relu_{number}': nn.ReLU()}
  return nn.Sequential(OrderedDict(layers | {'head': nn.Linear(hidden_sizes[-1], num_classes)}))


def cnn(size: int, channels: Sequence[int], hidden_size: int, num_classes: int) -> nn.Module:
  layers = {}
  for number, (before, after) in enumerate(zip((1, *channels[:-1]), channels, strict=True)):
    layers |= {f'conv_{number}': nn.Conv2d(before, after, 3, padding=1), f'relu_{number}': nn.ReLU()}
    layers |= {f'pool_{number}': nn.MaxPool2d(2)}
  image = (size // 2 ** len(channels), size // 2 ** len(channels), channels[-1])
  layers |= {'flatten': nn.Flatten(), 'dense_0': Linear(int(np.prod(image)), hidden_size, reads=image)}
  return nn.Sequential(OrderedDict(layers | {'relu': nn.ReLU(), 'head': nn.Linear(hidden_size, num_classes)}))


class Block(nn.Module):
  def __init__(self, inputs: int, channels: int, stride: int, norm: str):
    super().__init__()
    self.conv_0, self.norm_0 = _conv(inputs, channels, 3, stride), _norm(norm, channels)
    self.conv_1, self.norm_1 = _conv(channels, channels, 3), _norm(norm, channels)
    self.changes = inputs != channels
    if self.changes:
      self.shortcut, self.shortcut_norm = _conv(inputs, channels, 1, stride), _norm(norm, channels)

  def forward(self, x: Tensor) -> Tensor:
    y = functional.relu(self.norm_0(self.conv_0(x)))
    y = self.norm_1(self.conv_1(y))
    return functional.relu(y + (self.shortcut_norm(self.shortcut(x)) if self.changes else x))


class ResNet(nn.Module):
  def __init__(self, depth: int, num_classes: int, norm: str):
    super().__init__()
    self.stem_conv, self.stem_norm = _conv(3, 16, 3), _norm(norm, 16)
    blocks, before = {}, 16
    for stage, channels in enumerate((16, 32, 64)):
      for number in range((depth - 2) // 6):
        blocks[f'block_{len(blocks)}'] = Block(before, channels, 2 if stage and not number else 1, norm)
        before = channels
    self.blocks, self.head = nn.Sequential(OrderedDict(blocks)), nn.Linear(64, num_classes)

  def forward(self, x: Tensor) -> Tensor:
    x = functional.relu(self.stem_norm(self.stem_conv(x)))
    return self.head(self.blocks(x).mean((2, 3)))


def resnet(size: int, depth: int, num_classes: int, norm: str) -> nn.Module:
  return ResNet(depth, num_classes, norm)


def _conv(inputs: int, channels: int, kernel: int, stride: int = 1) -> nn.Conv2d:
  return nn.Conv2d(inputs, channels, kernel, stride, kernel // 2, bias=False)


def _norm(kind: str, channels: int) -> nn.Module:
  return nn.BatchNorm2d(channels) if kind == 'batch' else nn.GroupNorm(channels // 16, channels)


class LanguageModel(nn.Module):
  def __init__(self, cell: str, vocab_size: int, hidden_size: int):
    super().__init__()
    self.embed = nn.Embedding(vocab_size, hidden_size)
    self.rnn = {'lstm': nn.LSTM, 'gru': nn.GRU}[cell](hidden_size, hidden_size, batch_first=True)
    self.head = nn.Linear(hidden_size, vocab_size)

  def forward(self, tokens: Tensor) -> Tensor:
    return self.head(self.rnn(self.embed(tokens))[0])


language_model = LanguageModel


class GPT(nn.Module):
  def __init__(self, vocab_size: int, num_layers: int, embed_dim: int, num_heads: int, max_length: int):
    super().__init__()
    self.embed, self.positions = nn.Embedding(vocab_size, embed_dim), nn.Parameter(torch.zeros(max_length, embed_dim))
    blocks = {f'block_{number}': GPTBlock(embed_dim, num_heads) for number in range(num_layers)}
    self.blocks = nn.Sequential(OrderedDict(blocks))
    self.norm, self.head = nn.LayerNorm(embed_dim, eps=1e-6), nn.Linear(embed_dim, vocab_size)

  def forward(self, tokens: Tensor) -> Tensor:
    return self.head(self.norm(self.blocks(self.embed(tokens) + self.positions)))


class GPTBlock(nn.Module):
  def __init__(self, embed_dim: int, num_heads: int):
    super().__init__()
    self.num_heads = num_heads
    self.attention_norm, self.mlp_norm = nn.LayerNorm(embed_dim, eps=1e-6), nn.LayerNorm(embed_dim, eps=1e-6)
    self.qkv, self.out = nn.Linear(embed_dim, 3 * embed_dim), nn.Linear(embed_dim, embed_dim)
    self.up, self.down = nn.Linear(embed_dim, 4 * embed_dim), nn.Linear(4 * embed_dim, embed_dim)

  def forward(self, x: Tensor) -> Tensor:
    parts = self.qkv(self.attention_norm(x)).split(x.shape[-1], -1)
    heads = [part.unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for part in parts]
    contexts = functional.scaled_dot_product_attention(*heads, is_causal=True)
    x = x + self.out(contexts.transpose(1, 2).flatten(2))
    return x + self.down(functional.gelu(self.up(self.mlp_norm(x)), approximate='tanh'))


gpt = GPT


class Generator(nn.Module):
  def __init__(self, noise: int, channels: tuple[int, int]):
    super().__init__()
    first, second = channels
    self.project, self.norm_0 = Linear(noise, 49 * first, writes=(7, 7, first), bias=False), nn.BatchNorm2d(first)
    self.deconv_0, self.norm_1 = nn.ConvTranspose2d(first, second, 4, 2, 1, bias=False), nn.BatchNorm2d(second)
    self.deconv_1 = nn.ConvTranspose2d(second, 1, 4, 2, 1)

  def forward(self, noise: Tensor) -> Tensor:
    x = functional.relu(self.norm_0(self.project(noise).unflatten(1, (-1, 7, 7))))
    x = functional.relu(self.norm_1(self.deconv_0(x)))
    return torch.tanh(self.deconv_1(x))


generator = Generator


def steps(family: Family, weights: Path, tuned: bool = False, compiled: bool = False) -> Callable[[int], float]:
  """Function that takes a number of steps and returns the last one's loss.

  `tuned` keeps images channels last and fuses the optimizer.
  """
  device = torch.device('cuda' if torch.cuda.is_available() else 'cpu')
  memory = torch.channels_last if tuned else torch.contiguous_format
  model = family.build(sys.modules[__name__])
  load(model, dict(np.load(weights)))
  model = model.to(device, memory_format=memory)
  inputs, targets = (_tensor(array, memory).to(device) for array in family.batch().values())
  optimizer = torch.optim.Adam(model.parameters(), 1e-3, fused=tuned or None)
  forward = torch.compile(model) if compiled else model

  def run(steps: int) -> float:
    for _ in range(steps):
      optimizer.zero_grad()
      loss = _loss(forward(inputs), targets)
      loss.backward()
      optimizer.step()
    return loss.item()

  return run


def _tensor(array: np.ndarray, memory: torch.memory_format) -> Tensor:
  """Images [batch, channels, height, width] of ours, laid out in memory as is said; whole numbers as torch's own."""
  tensor = torch.from_numpy(np.ascontiguousarray(array))
  if tensor.ndim == 4:
    return tensor.permute(0, 3, 1, 2).contiguous(memory_format=memory)
  return tensor if tensor.is_floating_point() else tensor.long()


def _loss(outputs: Tensor, targets: Tensor) -> Tensor:
  if targets.is_floating_point():
    return functional.mse_loss(outputs, targets)
  return functional.cross_entropy(outputs.flatten(0, -2), targets.flatten())


def load(model: nn.Module, weights: dict[str, np.ndarray]) -> None:
  """Gives the model our parameters. Raises KeyError or ValueError where either has some that the other lacks."""
  left = dict(weights)
  for place, module in model.named_modules():
    path = place.removeprefix('blocks.').replace('.', '/') + '/' * bool(place)
    named = dict(module.named_parameters(recurse=False))
    for name, array in _arrays(module, lambda leaf, path=path: left.pop(path + leaf)).items():
      with torch.no_grad():
        named.pop(name).copy_(torch.from_numpy(np.ascontiguousarray(array)))
    if named:
      raise ValueError(f'{path}: {", ".join(named)} got no values')
  if left:
    raise ValueError(f'parameters that PyTorch has no place for: {", ".join(left)}')


def _arrays(module: nn.Module, ours: Callable[[str], np.ndarray]) -> dict[str, np.ndarray]:
  """Values of a layer's parameters; `ours` takes one of ours away, by its name in the layer."""
  biased = {'bias': ours('bias')} if isinstance(getattr(module, 'bias', None), nn.Parameter) else {}
  match module:
    case Linear():
      return biased | {'weight': _channels_first(ours('kernel'), module.reads, module.writes).T}
    case nn.Linear():
      return biased | {'weight': ours('kernel').T}
    case nn.Conv2d():
      return biased | {'weight': ours('kernel').transpose(3, 2, 0, 1)}
    case nn.ConvTranspose2d():  # torch's is the gradient of a convolution, ours a convolution of spread inputs
      return biased | {'weight': ours('kernel')[::-1, ::-1].transpose(2, 3, 0, 1)}
    case nn.GroupNorm() | nn.BatchNorm2d() | nn.LayerNorm():
      return biased | {'weight': ours('scale')}
    case nn.Embedding():
      return {'weight': ours('embedding')}
    case nn.RNNBase():
      return _recurrent(module, lambda leaf: ours(f'forward_0/{leaf}'))
    case GPT():
      return {'positions': ours('positions')}
  return {}


def _channels_first(kernel: np.ndarray, reads: Sequence[int], writes: Sequence[int]) -> np.ndarray:
  return kernel.reshape(*reads, *writes).transpose(2, 0, 1, 5, 3, 4).reshape(kernel.shape)


def _recurrent(module: nn.RNNBase, ours: Callable[[str], np.ndarray]) -> dict[str, np.ndarray]:
  """Torch has two biases, that are added; in a GRU the second one's last part is within the reset gate."""
  second = np.zeros_like(module.bias_hh_l0.detach().numpy())
  if module.mode == 'GRU':
    second[-module.hidden_size :] = ours('recurrent_bias')
  kernels = {'weight_ih_l0': ours('input/kernel').T, 'weight_hh_l0': ours('recurrent').T}
  return kernels | {'bias_ih_l0': ours('input/bias'), 'bias_hh_l0': second}
