"""Models of series: published sizes, padding that changes nothing, causality by gradients."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research.errors import ConfigError
from research.models.remat import with_remat
from research.models.rnn import RNN, Padded
from research.models.temporal import FCN, LSTMFCN, TCN, ResNet1D

KEY = jax.random.key(0)
LENGTH = 12
SERIES = jax.random.normal(jax.random.key(1), (4, LENGTH, 2))
LENGTHS = jnp.array([LENGTH, 7, 5, 1])
ENDED = np.arange(LENGTH) >= np.array(LENGTHS)[:, None]
SMALL = {'channels': (4, 6), 'kernel_sizes': (5, 3)}
MODELS = {
  'fcn': FCN(3, **SMALL),
  'fcn_stride': FCN(3, **SMALL, stride=2),
  'fcn_group': FCN(3, **SMALL, norm='group'),
  'lstm_fcn': LSTMFCN(3, **SMALL, length=LENGTH),
  'lstm_fcn_unshuffled': LSTMFCN(3, **SMALL, shuffle=False),
  'resnet': ResNet1D(3, (2, 4), (5, 3), stride=2),
  'tcn': TCN(3, (4, 4), 3),
}
BOTH = pytest.mark.parametrize('train', [False, True])


def initial(model, inputs=SERIES):
  """Variables that are no longer as they begin, so that biases and statistics count."""
  variables = jax.jit(model.init)(KEY, inputs)
  leaves, tree = jax.tree.flatten(variables)
  keys = jax.random.split(jax.random.key(7), len(leaves))
  moved = [leaf + 0.2 * jax.random.uniform(key, leaf.shape) for leaf, key in zip(leaves, keys, strict=True)]
  return jax.tree.unflatten(tree, moved)


def forward(model, train=False):
  """Compiled function (variables, inputs) -> logits and changed statistics."""
  rngs = {'dropout': jax.random.key(3)}
  return jax.jit(lambda variables, x: model.apply(variables, x, train, rngs=rngs, mutable=['batch_stats']))


def parameters(model, length=100) -> int:
  shapes = jax.eval_shape(model.init, KEY, jax.ShapeDtypeStruct((2, length, 1), jnp.float32))
  return sum(leaf.size for leaf in jax.tree.leaves(shapes['params']))


def test_sizes_are_those_of_the_papers_layers():
  """By hand: a convolution has kernel x inputs x outputs, a norm 2 a channel, an LSTM 4 (n + inputs + 1) n."""
  fcn = 8 * 128 + 5 * 128 * 256 + 3 * 256 * 128 + 2 * (128 + 256 + 128)
  assert parameters(FCN(2)) == fcn + 128 * 2 + 2
  assert parameters(LSTMFCN(2, length=100)) == fcn + 4 * (8 + 100 + 1) * 8 + (128 + 8) * 2 + 2

  def block(inputs, channels, norms=4 * 2):
    return (8 * inputs + (5 + 3) * channels + inputs * (inputs != channels) + norms) * channels

  residual = block(1, 64) + block(64, 128) + block(128, 128)
  assert parameters(ResNet1D(2)) == residual + 128 * 2 + 2
  tcn = TCN(2, (16, 16), kernel_size=3)
  assert parameters(tcn) == (3 * 16 + 2 * 16) + 3 * (3 * 16 * 16 + 2 * 16) + (16 + 16) + (16 * 2 + 2)


@pytest.mark.parametrize('train', [False, True])
@pytest.mark.parametrize('name', MODELS)
def test_padding_changes_no_logit_and_no_statistic(name, train):
  """Neither its values, be they not finite, nor their number."""
  model = MODELS[name]
  variables, run = initial(model), forward(model, train)
  expected = run(variables, Padded(SERIES, LENGTHS))
  for other in (1e3, jnp.nan):
    got = run(variables, Padded(jnp.where(ENDED[..., None], other, SERIES), LENGTHS))
    jax.tree.map(np.testing.assert_array_equal, got, expected)
  longer = jnp.pad(SERIES, ((0, 0), (0, 5), (0, 0)), constant_values=9)
  close = partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6)
  jax.tree.map(close, run(variables, Padded(longer, LENGTHS)), expected)


@pytest.mark.parametrize('name', MODELS)
def test_a_padded_series_is_the_series_itself(name):
  model = MODELS[name]
  variables, run = initial(model), forward(model)
  padded = run(variables, Padded(SERIES, LENGTHS))[0]
  for row in (1, 3):
    alone = run(variables, SERIES[row : row + 1, : LENGTHS[row]])[0]
    np.testing.assert_allclose(padded[row], alone[0], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize('name', ['fcn', 'lstm_fcn_unshuffled', 'resnet', 'tcn'])
def test_no_gradient_reaches_the_padding(name):
  model = MODELS[name]
  variables, run = initial(model), forward(model, train=True)
  gradient = np.asarray(jax.grad(lambda x: run(variables, Padded(x, LENGTHS))[0].sum())(SERIES))
  assert (gradient[ENDED] == 0).all() and (np.abs(gradient[~ENDED]).sum(-1) > 0).any()


@pytest.mark.parametrize('name', ['fcn_group', 'resnet', 'tcn'])
def test_a_series_without_a_step_spoils_no_gradient(name):
  model, variables = MODELS[name], initial(MODELS[name])
  total = lambda variables: jnp.sum(model.apply(variables, Padded(SERIES, LENGTHS.at[2].set(0))) ** 2)  # noqa: E731
  for leaf in jax.tree.leaves(jax.grad(total)(variables)):
    assert np.isfinite(leaf).all()


def test_a_series_without_a_step_is_in_no_statistic():
  model, variables = MODELS['fcn'], initial(MODELS['fcn'])
  some, all_ = np.array([0, 1, 3]), LENGTHS.at[2].set(0)
  run = forward(model, train=True)
  _, found = run(variables, Padded(SERIES, all_))
  _, expected = run(variables, Padded(SERIES[some], LENGTHS[some]))
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), found, expected)


def seen(model, name: str, **options) -> np.ndarray:
  """What the submodule called `name` gives for SERIES."""
  given = {'capture_intermediates': True, 'mutable': ['intermediates'], 'rngs': {'dropout': KEY}, **options}
  found = model.apply(initial(model), SERIES, **given)[1]['intermediates'][name]['__call__'][0]
  return np.asarray(jax.tree.leaves(found)[0])


def test_the_stride_is_that_of_the_first_block_and_the_last_convolution_has_no_activation():
  model = FCN(3, (4, 4), (5, 3), stride=2)
  assert [seen(model, f'block_{number}').shape[1] for number in range(2)] == [6, 6]
  model = ResNet1D(3, (2, 4), (5, 3, 3), stride=2)
  layers = ('layer_0', 'layer_1', 'layer_2', 'shortcut')
  parts = [seen(model, f'block_{number}_{layer}') for number in range(2) for layer in layers]
  assert [part.shape[1] for part in parts] == [6] * 8
  assert [bool((part < 0).any()) for part in parts] == [False, False, True, True] * 2


def test_a_residual_block_adds_its_shortcut():
  """Of filters that are all zero nothing is left but the shortcut."""
  model = TCN(3, (2,), 3, pooling='')
  variables = model.init(KEY, SERIES)
  head = variables['params']['head']
  silent = jax.tree.map(jnp.zeros_like, variables['params']) | {'head': head}
  found = model.apply({'params': silent}, SERIES)
  head = jax.tree.map(np.asarray, head)
  np.testing.assert_allclose(found, np.maximum(SERIES, 0) @ head['kernel'] + head['bias'], rtol=1e-5, atol=1e-6)
  model = ResNet1D(3, (2,), (5,), norm='')
  variables = model.init(KEY, SERIES)
  head = variables['params']['head']
  silent = jax.tree.map(jnp.zeros_like, variables['params']) | {'head': head}
  found = model.apply({'params': silent}, SERIES)
  expected = np.maximum(SERIES, 0).mean(1) @ np.asarray(head['kernel']) + np.asarray(head['bias'])
  np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_dropout_of_a_convolution_drops_whole_channels():
  dropped = seen(TCN(3, (32,), 3, activation='sigmoid', dropout_rate=0.5), 'Dropout_0', train=True) == 0
  assert set(dropped.sum(1).ravel()) == {0, LENGTH}


@pytest.mark.parametrize('model', [FCN(3, **SMALL), LSTMFCN(3, **SMALL, length=LENGTH), ResNet1D(3, (4,), (3,))])
def test_dropout_acts_in_training_alone(model):
  rates = {'dropout_rate': 0.5} | ({'recurrent_dropout_rate': 0.5} if isinstance(model, LSTMFCN) else {})
  variables = initial(model)
  dropping, plain = model.clone(**rates), model.clone(**dict.fromkeys(rates, 0.0))
  np.testing.assert_array_equal(dropping.apply(variables, SERIES), plain.apply(variables, SERIES))
  (first, _), (second, _) = (forward(one, train=True)(variables, SERIES) for one in (dropping, plain))
  assert not np.allclose(first, second, atol=1e-3)


def test_the_shuffled_half_is_read_after_its_last_channel():
  """Without the rows of the other half the logits depend on every channel, the last one too."""
  model, series = LSTMFCN(2, (4,), (3,), length=LENGTH), jax.random.normal(KEY, (2, LENGTH, 4))
  variables = initial(model, series)
  head = variables['params']['head']
  params = variables['params'] | {'head': {**head, 'kernel': head['kernel'].at[:4].set(0)}}
  slope = jax.grad(lambda x: model.apply({**variables, 'params': params}, x).sum())(series)
  assert (np.abs(slope).sum((0, 1)) > 0).all()


def test_a_batch_without_a_step_spoils_no_statistic():
  variables = initial(MODELS['fcn'])
  nothing = Padded(SERIES, jnp.zeros_like(LENGTHS))
  _, changed = MODELS['fcn'].apply(variables, nothing, train=True, mutable=['batch_stats'])
  for leaf in jax.tree.leaves(changed):
    assert np.isfinite(leaf).all()


def test_the_temporal_network_is_causal_and_sees_as_far_as_it_says():
  """The output at a step depends on the steps before it, up to its reach, and on no later one."""
  model = TCN(1, (3, 3), kernel_size=3, pooling='', activation='tanh')
  series = jax.random.normal(KEY, (1, 20, 1))
  variables = initial(model, series)
  jacobian = jax.jacobian(lambda x: model.apply(variables, x[None, :, None])[0, :, 0])(series[0, :, 0])
  output, step = np.indices((20, 20))
  reach = (3 - 1) * 2 * (2**2 - 1)
  np.testing.assert_array_equal(jacobian != 0, (step <= output) & (step >= output - reach))


def reading(model, variables, inputs) -> jax.Array:
  """What the recurrent half gives at each of its steps."""
  _, state = model.apply(variables, inputs, capture_intermediates=True, mutable=['intermediates'])
  return state['intermediates']['rnn']['__call__'][0][0]


def test_the_shuffled_half_reads_a_whole_series_in_one_step():
  """As an LSTM does that is given the series as one input of `length` features."""
  model, series = LSTMFCN(2, **SMALL, length=LENGTH, hidden_size=3), SERIES[..., :1]
  variables = initial(model, series)
  outputs, _ = RNN(3).apply({'params': variables['params']['rnn']}, series[:, None, :, 0])
  np.testing.assert_allclose(reading(model, variables, series), outputs, rtol=1e-5, atol=1e-6)


def test_a_longer_series_is_cut_and_a_shorter_one_filled():
  model = LSTMFCN(2, **SMALL, length=8)
  variables = initial(model)
  read = partial(reading, model, variables)
  np.testing.assert_array_equal(read(SERIES), read(SERIES[:, :8]))
  np.testing.assert_array_equal(read(SERIES[:, :5]), read(SERIES.at[:, 5:].set(0)))


def test_pooling_is_of_the_real_steps():
  model = TCN(3, (4,), 3, pooling='')
  variables = initial(model)
  every = model.apply(variables, SERIES)
  for pooling, expected in (('last', every[1, 6]), ('mean', every[1, :7].mean(0))):
    logits = model.clone(pooling=pooling).apply(variables, Padded(SERIES, LENGTHS))
    np.testing.assert_allclose(logits[1], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize('name', ['lstm_fcn', 'tcn'])
def test_remat_changes_nothing(name, x64):
  model = MODELS[name].clone(dropout_rate=0.5)
  series = Padded(SERIES.astype(jnp.float64), LENGTHS)
  variables = initial(model, series)

  def gradient(model):
    run = forward(model, train=True)
    return jax.jit(jax.grad(lambda params: jnp.sum(run({**variables, 'params': params}, series)[0] ** 2)))

  expected, got = (gradient(other)(variables['params']) for other in (model, with_remat(model, 'everything')))
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12), got, expected)


@pytest.mark.parametrize(
  ('make', 'message'),
  [
    (lambda: FCN(3, (4,), (5, 3)), r'kernel_sizes=\(5, 3\): must be 1, one for each of channels=\(4,\)'),
    (lambda: FCN(3, kernel_sizes=(8, 0, 3)), r'kernel_sizes=\(8, 0, 3\): each must be a whole number of at least 1'),
    (lambda: FCN(3, stride=0), 'stride=0'),
    (lambda: FCN(0), 'num_classes=0'),
    (lambda: FCN(3, (), ()), r'channels=\(\): must have at least one entry'),
    (lambda: FCN(3, dropout_rate=1.0), 'dropout_rate=1.0'),
    (lambda: FCN(3, norm='mean'), "norm='mean': is unknown; nearest: batch, layer, group"),
    (lambda: LSTMFCN(3), 'length=0: must be that of a series'),
    (lambda: LSTMFCN(3, length=12, recurrent_dropout_rate=-0.1), 'recurrent_dropout_rate=-0.1'),
    (lambda: LSTMFCN(3, length=12, recurrent_dropout_rate=1.0), 'recurrent_dropout_rate=1.0'),
    (lambda: LSTMFCN(3, length=12, dropout_rate=1.0), '^dropout_rate=1.0'),
    (lambda: ResNet1D(3, dropout_rate=1.0), 'dropout_rate=1.0'),
    (lambda: TCN(3, dropout_rate=1.0), 'dropout_rate=1.0'),
    (lambda: ResNet1D(3, kernel_sizes=()), r'kernel_sizes=\(\): must have at least one entry'),
    (lambda: ResNet1D(3, stride=-1), 'stride=-1'),
    (lambda: ResNet1D(3, activation='rely'), "activation='rely': is unknown; nearest: relu"),
    (lambda: TCN(3, kernel_size=0), 'kernel_size=0'),
    (lambda: TCN(3, channels=(4, -4)), r'channels=\(4, -4\)'),
    (lambda: TCN(3, pooling='max'), "pooling='max': is unknown; nearest: last, mean"),
  ],
)
def test_what_cannot_be_is_refused(make, message):
  with pytest.raises(ConfigError, match=message):
    make()
