"""Recurrent networks against numpy and torch, padding, streams, and what each kind of dropout drops."""

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest
from flax import linen as nn
from scipy.special import expit

from research.errors import ConfigError
from research.models.frames import Frames
from research.models.language import LanguageModel
from research.models.rnn import GATES, RNN, Padded, SequenceClassifier, SequenceLabeler

KEY = jax.random.key(0)
BATCH, LENGTH, FEATURES, UNITS = 3, 7, 5, 4
INPUTS = jax.random.normal(KEY, (BATCH, LENGTH, FEATURES))
LENGTHS = jnp.array([7, 3, 5], jnp.int32)


def made(**options) -> tuple[RNN, dict]:
  rnn = RNN(UNITS, **options)
  variables = rnn.init(KEY, INPUTS)
  noise = lambda leaf: leaf + 0.1 * jax.random.normal(KEY, leaf.shape)  # no bias is zero  # noqa: E731
  return rnn, jax.tree.map(noise, variables)


def steps_in_numpy(cell: str, params: dict, inputs: np.ndarray) -> np.ndarray:
  """Outputs [length, batch, units] of one layer, step by step, in float64."""
  params = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)
  h = c = np.zeros((inputs.shape[1], UNITS))
  outputs = []
  for x in inputs:
    a, s = x @ params['input']['kernel'], h @ params['recurrent']
    if cell != 'layer_norm_lstm':
      a = a + params['input']['bias']
    if cell == 'elman':
      h = np.tanh(a + s)
    elif cell == 'gru':
      (a_r, a_z, a_n), (s_r, s_z, s_n) = np.split(a, 3, -1), np.split(s, 3, -1)
      z = expit(a_z + s_z)
      n = np.tanh(a_n + expit(a_r + s_r) * (s_n + params['recurrent_bias']))
      h = (1 - z) * n + z * h
    else:
      normed = cell == 'layer_norm_lstm'
      if normed:
        a, s = normalized(a, params, 'input_norm'), normalized(s, params, 'recurrent_norm')
      i, f, g, o = np.split(a + s, 4, -1)
      c = expit(f) * c + expit(i) * np.tanh(g)
      h = expit(o) * np.tanh(normalized(c, params, 'cell_norm') if normed else c)
    outputs.append(h)
  return np.stack(outputs)


def normalized(x: np.ndarray, params: dict, name: str) -> np.ndarray:
  z = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6)
  return z * params[f'{name}_scale'] + params[f'{name}_bias']


@pytest.mark.parametrize('cell', GATES)
def test_two_layers_in_both_directions_are_those_of_numpy(cell, x64):
  rnn, variables = made(num_layers=2, cell=cell, bidirectional=True)
  variables, inputs = jax.tree.map(lambda leaf: leaf.astype(float), (variables, INPUTS))
  x = np.asarray(inputs).swapaxes(0, 1)
  for number in range(2):
    forward, backward = (variables['params'][f'{way}_{number}'] for way in ('forward', 'backward'))
    x = np.concatenate([steps_in_numpy(cell, forward, x), steps_in_numpy(cell, backward, x[::-1])[::-1]], -1)
  np.testing.assert_allclose(jax.jit(rnn.apply)(variables, inputs)[0], x.swapaxes(0, 1), atol=1e-9)


def torch_layer(torch, cell: str, params: dict):
  """torch's layer with the weights of ours, whose one bias it has twice."""
  kinds = {'elman': torch.nn.RNN, 'gru': torch.nn.GRU, 'lstm': torch.nn.LSTM}
  layer = kinds[cell](FEATURES, UNITS, batch_first=True)
  tensor = lambda array: torch.nn.Parameter(torch.tensor(np.asarray(array)))  # noqa: E731
  layer.weight_ih_l0, layer.weight_hh_l0 = tensor(params['input']['kernel'].T), tensor(params['recurrent'].T)
  bias = np.zeros(GATES[cell] * UNITS, np.float32)
  if cell == 'gru':
    bias[2 * UNITS :] = params['recurrent_bias']
  layer.bias_ih_l0, layer.bias_hh_l0 = tensor(params['input']['bias']), tensor(bias)
  return layer


@pytest.mark.parametrize('cell', ['elman', 'gru', 'lstm'])
def test_values_and_gradients_are_those_of_torch(cell):
  torch = pytest.importorskip('torch', reason='of the extra `peers`')
  rnn, variables = made(cell=cell)
  params = variables['params']['forward_0']
  layer = torch_layer(torch, cell, params)
  outputs = layer(torch.tensor(np.asarray(INPUTS)))[0]
  outputs.square().sum().backward()
  np.testing.assert_allclose(rnn.apply(variables, INPUTS)[0], outputs.detach(), atol=1e-5)
  gradient = jax.grad(lambda variables: jnp.sum(rnn.apply(variables, INPUTS)[0] ** 2))(variables)['params']['forward_0']
  close = lambda ours, theirs: np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)  # noqa: E731
  close(gradient['input']['kernel'], layer.weight_ih_l0.grad.T)
  close(gradient['input']['bias'], layer.bias_ih_l0.grad)
  close(gradient['recurrent'], layer.weight_hh_l0.grad.T)
  if cell == 'gru':
    close(gradient['recurrent_bias'], layer.bias_hh_l0.grad[2 * UNITS :])


@pytest.mark.parametrize('cell', GATES)
def test_what_follows_a_sequence_changes_nothing(cell):
  rnn, variables = made(num_layers=2, cell=cell, bidirectional=True)
  padding = jnp.arange(LENGTH)[None, :, None] >= LENGTHS[:, None, None]

  @jax.jit
  def results(inputs):
    outputs, carry = rnn.apply(variables, inputs, LENGTHS)
    total = lambda variables, x: jnp.sum(jnp.sin(rnn.apply(variables, x, LENGTHS)[0]))  # noqa: E731
    return outputs, carry, *jax.grad(total, (1, 0))(variables, inputs)

  first = results(INPUTS)
  for fill in (1e3, jnp.nan):
    jax.tree.map(np.testing.assert_array_equal, first, results(jnp.where(padding, fill, INPUTS)))
  assert not np.where(padding, first[0], 0).any() and not np.where(padding, first[2], 0).any()
  for row, length in enumerate(LENGTHS):
    alone = rnn.apply(variables, INPUTS[row : row + 1, :length])
    np.testing.assert_allclose(first[0][row, :length], alone[0][0], atol=1e-5)
    jax.tree.map(lambda a, b, row=row: np.testing.assert_allclose(a[row], b[0], atol=1e-5), first[1], alone[1])


@pytest.mark.parametrize('cell', GATES)
def test_a_stream_in_pieces_is_the_stream_as_a_whole(cell):
  rnn, variables = made(num_layers=2, cell=cell)
  whole, end = rnn.apply(variables, INPUTS)
  pieces, carry = [], None
  for start, stop in ((0, 3), (3, 4), (4, LENGTH)):
    outputs, carry = rnn.apply(variables, INPUTS[:, start:stop], carry=carry)
    pieces.append(outputs)
  np.testing.assert_allclose(jnp.concatenate(pieces, 1), whole, atol=1e-6)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), carry, end)


def test_a_direction_looks_one_way():
  rnn, variables = made(num_layers=2)
  slopes = jax.jacrev(lambda x: rnn.apply(variables, x)[0][0].sum(-1))(INPUTS)[:, 0].any(-1)
  np.testing.assert_array_equal(slopes, np.tri(LENGTH, dtype=bool))


def test_dropout_between_layers_is_drawn_at_every_step_and_recurrent_dropout_once():
  rnn, variables = made(num_layers=2, dropout_rate=0.5)
  draw = lambda rnn: rnn.apply(variables, INPUTS, train=True, rngs={'dropout': KEY})[0]  # noqa: E731
  dropouts = {'capture_intermediates': lambda module, _: isinstance(module, nn.Dropout), 'mutable': 'intermediates'}
  _, seen = rnn.apply(variables, INPUTS, train=True, rngs={'dropout': KEY}, **dropouts)
  kept = np.asarray(seen['intermediates']['Dropout_0']['__call__'][0]) != 0  # [length, batch, units]
  assert all(len(np.unique(masks, axis=0)) > 1 for masks in (kept, kept.swapaxes(0, 1))) and 0.3 < kept.mean() < 0.7
  np.testing.assert_array_equal(draw(RNN(UNITS, 2)), rnn.apply(variables, INPUTS)[0])
  recurrent = RNN(UNITS, 2, recurrent_dropout_rate=0.5)
  first, rest = np.split(draw(recurrent) != rnn.apply(variables, INPUTS)[0], [1], axis=1)
  assert not first.any() and rest.any()  # nothing is fed back before the first output


def test_recurrent_dropout_drops_the_same_units_at_every_step():
  """Where half of the units are cut off, outputs are those of a kernel without their rows, and twice the others."""
  rnn = RNN(UNITS, recurrent_dropout_rate=0.5)
  variables = rnn.init(KEY, INPUTS[:1])
  found = rnn.apply(variables, INPUTS[:1], train=True, rngs={'dropout': KEY})[0]
  masks = (2.0 * ((np.arange(2**UNITS)[:, None] >> np.arange(UNITS)) & 1)).astype(np.float32)
  layer = variables['params']['forward_0']
  cut = [{'params': {'forward_0': {**layer, 'recurrent': mask[:, None] * layer['recurrent']}}} for mask in masks]
  gaps = [np.abs(RNN(UNITS).apply(one, INPUTS[:1])[0] - found).max() for one in cut]
  assert sum(gap < 1e-6 for gap in gaps) == 1


def test_weights_begin_orthogonal_and_forget_gates_open():
  params = RNN(UNITS).init(KEY, INPUTS)['params']['forward_0']
  for block in np.split(np.asarray(params['recurrent']), 4, -1):
    np.testing.assert_allclose(block @ block.T, np.eye(UNITS), atol=1e-5)
  np.testing.assert_array_equal(params['input']['bias'], np.repeat([0, 1, 0, 0], UNITS))
  others = (RNN(UNITS, cell=cell).init(KEY, INPUTS)['params']['forward_0'] for cell in ('elman', 'gru'))
  assert not any(np.asarray(other['input']['bias']).any() for other in others)


@pytest.mark.parametrize('model', [SequenceClassifier(RNN(UNITS), 2), SequenceLabeler(RNN(UNITS), 2)])
def test_the_head_drops_units_in_training_alone(model):
  variables = model.init(KEY, INPUTS)
  dropping = model.clone(dropout_rate=0.5)
  np.testing.assert_array_equal(dropping.apply(variables, INPUTS), model.apply(variables, INPUTS))
  trained = dropping.apply(variables, INPUTS, train=True, rngs={'dropout': KEY})
  assert not np.allclose(trained, model.apply(variables, INPUTS), atol=1e-3)


def test_a_sequence_without_a_step_has_a_mean_of_zero():
  model = SequenceClassifier(RNN(UNITS), 2, 'mean')
  variables = model.init(KEY, INPUTS)
  logits = model.apply(variables, Padded(INPUTS, jnp.array([1, 0, 2])))
  np.testing.assert_allclose(logits[1], variables['params']['head']['bias'], atol=1e-6)
  np.testing.assert_allclose(logits[0], model.apply(variables, INPUTS[:1, :1])[0], atol=1e-6)


@pytest.mark.parametrize('pooling', ['last', 'mean'])
def test_a_classifier_sees_what_a_sequence_has(pooling):
  model = SequenceClassifier(RNN(UNITS, bidirectional=True), 2, pooling)
  variables = model.init(KEY, INPUTS)
  logits = model.apply(variables, Padded(INPUTS, LENGTHS))
  np.testing.assert_array_equal(logits, model.apply(variables, Padded(INPUTS.at[1, 3:].set(9.0), LENGTHS)))
  np.testing.assert_allclose(logits[1], model.apply(variables, INPUTS[1:2, :3])[0], atol=1e-6)
  outputs, _ = model.rnn.apply({'params': variables['params']['rnn']}, INPUTS[:1])
  pooled = outputs[0].mean(0) if pooling == 'mean' else jnp.concatenate([outputs[0, -1, :UNITS], outputs[0, 0, UNITS:]])
  head = variables['params']['head']
  np.testing.assert_allclose(logits[0], pooled @ head['kernel'] + head['bias'], atol=1e-6)


@pytest.mark.parametrize(
  ('make', 'message'),
  [
    (lambda: RNN(4, cell='lstn'), "cell='lstn': is unknown; nearest: lstm"),
    (lambda: RNN(0), 'hidden_size=0: must be a whole number of at least 1'),
    (lambda: RNN(4, num_layers=0), 'num_layers=0'),
    (lambda: RNN(4, dropout_rate=1.0), 'dropout_rate=1.0'),
    (lambda: RNN(4, recurrent_dropout_rate=-0.1), 'recurrent_dropout_rate'),
    (lambda: RNN(4, recurrent_dropout_rate=1.0), 'recurrent_dropout_rate=1.0'),
    (lambda: SequenceClassifier(RNN(4), 2, dropout_rate=1.0), 'dropout_rate=1.0'),
    (lambda: SequenceLabeler(RNN(4), 2, dropout_rate=1.0), 'dropout_rate=1.0'),
    (lambda: LanguageModel(7, RNN(4, cell='lstn'), 5), "cell='lstn': is unknown; nearest: lstm"),
    (
      lambda: LanguageModel(7, RNN(4, bidirectional=True), 5),
      'bidirectional: would leak future tokens; a language model needs',
    ),
    (lambda: LanguageModel(0, RNN(4), 5), 'vocab_size=0'),
    (lambda: LanguageModel(7, RNN(4), 0), 'embed_dim=0'),
    (lambda: SequenceClassifier(RNN(4), 0), 'num_classes=0'),
    (lambda: SequenceLabeler(RNN(4), -2), 'num_classes=-2'),
    (lambda: Frames(SequenceClassifier(RNN(4), 2), 0), 'size=0'),
    (lambda: SequenceClassifier(RNN(4), 2, 'max'), "pooling='max': is unknown; nearest: last, mean"),
  ],
)
def test_what_cannot_be_is_told_in_one_line(make, message):
  with pytest.raises(ConfigError, match=message):
    make()


@pytest.mark.parametrize(
  'other', [RNN(UNITS), RNN(UNITS, 2, bidirectional=True), RNN(UNITS + 1, 2), RNN(UNITS, 2, cell='gru')]
)
def test_a_carry_of_another_network_is_refused(other):
  rnn, variables = made(num_layers=2)
  with pytest.raises(ConfigError, match=r'^carry: has shape '):
    rnn.apply(variables, INPUTS, carry=other.initial_carry(BATCH))


def test_a_batch_of_another_size_is_refused(monkeypatch):
  monkeypatch.setattr(jaxtyping.config, 'jaxtyping_disable', True)  # which users do not have
  rnn, variables = made()
  with pytest.raises(ConfigError, match=r'^carry: has shape .*\(1, 4\)'):
    rnn.apply(variables, INPUTS, carry=rnn.initial_carry(1))
  with pytest.raises(ConfigError, match=r'^lengths: has shape \(1,\); must be \(3,\)'):
    rnn.apply(variables, INPUTS, LENGTHS[:1])


def test_double_precision_is_that_of_every_parameter(x64):
  params = RNN(UNITS, cell='lstm').init(KEY, jnp.zeros((1, 2, 3), jnp.float64))
  assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {np.dtype(float)}


@pytest.mark.parametrize('dtype', [jnp.int32, jnp.bfloat16])
def test_inputs_of_any_type_are_read(dtype):
  rnn, variables = made()
  inputs = (10 * INPUTS).astype(dtype)
  np.testing.assert_array_equal(rnn.apply(variables, inputs)[0], rnn.apply(variables, inputs.astype(jnp.float32))[0])
