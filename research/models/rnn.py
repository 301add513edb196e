"""Recurrent networks: Elman, GRU, LSTM and layer-norm LSTM, stacked and bidirectional."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array
from jaxtyping import Bool, Float, Int, Num

from research.errors import ConfigError, check_choice, check_counts, check_range
from research.ops import recurrent
from research.ops.layers import Dense
from research.ops.padding import valid
from research.types import PyTree

GATES = {'elman': 1, 'gru': 3, 'lstm': 4, 'layer_norm_lstm': 4}  # gates that a cell computes
MEMORIES = {'elman': 1, 'gru': 1, 'lstm': 2, 'layer_norm_lstm': 2}  # arrays [batch, hidden] in a carry


class Padded(NamedTuple):
  """Sequences of different lengths; padding changes no result."""

  values: Num[Array, 'batch length ...']
  lengths: Int[Array, ' batch']


def unpadded(inputs: Array | Padded) -> tuple[Array, Array | None]:
  """Values, and lengths if the inputs are padded."""
  return (inputs.values, jnp.asarray(inputs.lengths)) if isinstance(inputs, Padded) else (inputs, None)


class RecurrentLayer(nn.Module):
  """One layer in one direction; see `research.ops.recurrent` for the equations.

  An Elman or LSTM layer equals torch's with the sum of its two biases. Dropout applies to the output on its way to the
  next step, with the same mask at every step (Gal and Ghahramani 2016).
  """

  hidden_size: int
  cell: str = 'lstm'
  dropout_rate: float = 0.0
  reverse: bool = False

  @nn.compact
  def __call__(
    self,
    inputs: Num[Array, 'batch length features'],
    mask: Bool[Array, 'batch length'] | None,
    carry: tuple[Array, ...],
    train: bool,
  ) -> tuple[Float[Array, 'batch length hidden'], tuple[Array, ...]]:
    gates = GATES[self.cell]
    use_bias, bias_init = self.cell != 'layer_norm_lstm', _remembering if self.cell == 'lstm' else nn.initializers.zeros
    x = Dense(gates * self.hidden_size, use_bias, bias_init=bias_init, name='input')(inputs)
    kernel = self.param('recurrent', _orthogonal_blocks, (self.hidden_size, gates * self.hidden_size))
    cell, params = self._cell()
    carry = tuple(part.astype(x.dtype) for part in carry)
    ones = jnp.ones_like(carry[0]) if train and self.dropout_rate else None
    dropout_mask = ones if ones is None else nn.Dropout(self.dropout_rate)(ones, deterministic=False)
    return recurrent.recurrence(cell, params, x, kernel.astype(x.dtype), carry, mask, dropout_mask, self.reverse)

  def _cell(self) -> tuple[recurrent.Cell, PyTree]:
    """The cell and its parameters."""
    ones, zeros = nn.initializers.ones, nn.initializers.zeros
    match self.cell:
      case 'elman':
        return recurrent.elman, ()
      case 'gru':
        return recurrent.gru, self.param('recurrent_bias', zeros, (self.hidden_size,))
      case 'lstm':
        return recurrent.lstm, ()
    scales = [self.param(f'{name}_scale', ones, (size,)) for name, size in self._norms().items()]
    biases = [self.param(f'{name}_bias', zeros, (size,)) for name, size in self._norms().items()]
    return recurrent.layer_norm_lstm, tuple(zip(scales, biases, strict=True))

  def _norms(self) -> dict[str, int]:
    return {'input_norm': 4 * self.hidden_size, 'recurrent_norm': 4 * self.hidden_size, 'cell_norm': self.hidden_size}


class RNN(nn.Module):
  """Stacked recurrent layers.

  Raises ConfigError for an unknown cell, a dropout rate that is not below 1, or lengths or a carry of the wrong shape.
  """

  hidden_size: int  # of a layer, in each direction
  num_layers: int = 1
  cell: str = 'lstm'  # elman, gru, lstm or layer_norm_lstm
  bidirectional: bool = False
  dropout_rate: float = 0.0  # between layers, with a new mask at every step
  recurrent_dropout_rate: float = 0.0  # of the recurrent connections, with one mask for all steps

  def __post_init__(self):
    check_counts(hidden_size=self.hidden_size, num_layers=self.num_layers)
    check_choice('cell', self.cell, GATES)
    check_range('dropout_rate', self.dropout_rate, below=1)
    check_range('recurrent_dropout_rate', self.recurrent_dropout_rate, below=1)
    super().__post_init__()

  @nn.compact
  def __call__(
    self,
    inputs: Num[Array, 'batch length features'],
    lengths: Int[Array, ' batch'] | None = None,
    carry: PyTree = None,
    train: bool = False,
  ) -> tuple[Float[Array, 'batch length hidden'], PyTree]:
    """Outputs (both directions concatenated), 0 past a sequence's end, and the carry at its end.

    `carry` is what an earlier call returned, so a forward network can run in chunks; None starts from zeros.
    """
    zeros = self.initial_carry(inputs.shape[0])
    carry = zeros if carry is None else carry
    _check_shapes('carry', _shapes(carry), _shapes(zeros))
    mask = None
    if lengths is not None:
      _check_shapes('lengths', jnp.shape(lengths), inputs.shape[:1])
      mask = valid(lengths, inputs.shape[1])
    x, last = inputs, []
    if mask is not None:
      x = jnp.where(mask[..., None], x, 0)  # non-finite padding would make the gradients non-finite
    for number, begin in enumerate(carry):
      if number:
        x = nn.Dropout(self.dropout_rate)(x, deterministic=not train)
      ways = [
        self._layer(number, way)(x, mask, way_carry, train)
        for way, way_carry in zip(self._directions(), begin, strict=True)
      ]
      x = jnp.concatenate([outputs for outputs, _ in ways], -1)
      last.append(tuple(end for _, end in ways))
    return x, tuple(last)

  def initial_carry(self, batch_size: int) -> PyTree:
    """Zeros: for each layer and direction, arrays [batch, hidden]."""
    zeros = (jnp.zeros((batch_size, self.hidden_size)),) * MEMORIES[self.cell]
    return ((zeros,) * len(self._directions()),) * self.num_layers

  def _directions(self) -> tuple[str, ...]:
    return ('forward', 'backward') if self.bidirectional else ('forward',)

  def _layer(self, number: int, way: str) -> RecurrentLayer:
    reverse = way == 'backward'
    return RecurrentLayer(self.hidden_size, self.cell, self.recurrent_dropout_rate, reverse, name=f'{way}_{number}')


def _shapes(arrays: PyTree) -> PyTree:
  return jax.tree.map(jnp.shape, arrays)


def _check_shapes(name: str, given: PyTree, needed: PyTree) -> None:
  """Raises ConfigError for arrays that JAX would broadcast, or refuse with an obscure message."""
  if given != needed:
    raise ConfigError(f'{name}: has shape {given}; must be {needed} for these inputs')


def check_forward(rnn: RNN, what: str) -> None:
  """Raises ConfigError for a bidirectional network, which would leak future tokens."""
  if rnn.bidirectional:
    raise ConfigError(f'bidirectional: would leak future tokens; {what} needs a unidirectional network')


class SequenceClassifier(nn.Module):
  """Class logits of a sequence, from its last output or the mean; a backward direction ends at the start."""

  rnn: RNN
  num_classes: int
  pooling: str = 'last'  # or 'mean'
  dropout_rate: float = 0.0  # of the pooled features

  def __post_init__(self):
    check_counts(num_classes=self.num_classes)
    check_choice('pooling', self.pooling, POOLING)
    check_range('dropout_rate', self.dropout_rate, below=1)
    super().__post_init__()

  @nn.compact
  def __call__(
    self, inputs: Num[Array, 'batch length features'] | Padded, train: bool = False
  ) -> Float[Array, 'batch classes']:
    values, lengths = unpadded(inputs)
    outputs, carry = self.rnn(values, lengths, train=train)
    x = POOLING[self.pooling](outputs, lengths, carry)
    x = nn.Dropout(self.dropout_rate)(x, deterministic=not train)
    return Dense(self.num_classes, name='head')(x)


class SequenceLabeler(nn.Module):
  """Class logits of every frame of a sequence; meaningless past its end."""

  rnn: RNN
  num_classes: int
  dropout_rate: float = 0.0  # of the outputs

  def __post_init__(self):
    check_counts(num_classes=self.num_classes)
    check_range('dropout_rate', self.dropout_rate, below=1)
    super().__post_init__()

  @nn.compact
  def __call__(
    self, inputs: Num[Array, 'batch length features'] | Padded, train: bool = False
  ) -> Float[Array, 'batch length classes']:
    values, lengths = unpadded(inputs)
    outputs, _ = self.rnn(values, lengths, train=train)
    return Dense(self.num_classes, name='head')(nn.Dropout(self.dropout_rate)(outputs, deterministic=not train))


def _last(outputs: Array, lengths: Array | None, carry: PyTree) -> Float[Array, 'batch hidden']:
  return jnp.concatenate([way[0] for way in carry[-1]], -1)


def _mean(outputs: Array, lengths: Array | None, carry: PyTree) -> Float[Array, 'batch hidden']:
  if lengths is None:
    return outputs.mean(1)
  return outputs.sum(1) / jnp.maximum(lengths, 1)[:, None].astype(outputs.dtype)


POOLING: dict[str, Callable] = {'last': _last, 'mean': _mean}


def _orthogonal_blocks(key: Array, shape: tuple[int, int], dtype: Any = float) -> Array:
  """An orthogonal matrix for each gate, which preserves gradient norms through time (Saxe et al. 2014)."""
  hidden_size, gates = shape[0], shape[1] // shape[0]
  blocks = [
    nn.initializers.orthogonal()(part, (hidden_size, hidden_size), dtype) for part in jax.random.split(key, gates)
  ]
  return jnp.concatenate(blocks, -1)


def _remembering(key: Array, shape: tuple[int], dtype: Any = float) -> Array:
  """LSTM biases with a forget gate bias of 1 (Jozefowicz, Zaremba and Sutskever 2015, section 2.2)."""
  return jnp.zeros(shape, dtype).reshape(4, -1).at[1].set(1).reshape(shape)
