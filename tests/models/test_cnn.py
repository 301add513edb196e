"""LeNet-5 and the plain stack: published size, and behavior."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research.errors import ConfigError
from research.models.cnn import ConvNet, LeNet5

KEY = jax.random.key(0)
IMAGES = jax.random.uniform(jax.random.key(1), (4, 12, 12, 1))


def sizes(model, shape):
  """Number of entries of each parameter, without computing any."""
  variables = jax.eval_shape(model.init, KEY, jax.ShapeDtypeStruct(shape, jnp.float32))
  paths = jax.tree.leaves_with_path(variables['params'])
  return {jax.tree_util.keystr(path, simple=True, separator='/'): leaf.size for path, leaf in paths}


def test_lenet5_has_its_61706_parameters():
  assert sum(sizes(LeNet5(10), (1, 28, 28, 1)).values()) == 61_706


def test_stack_is_of_the_described_layers():
  stack = sizes(ConvNet((32, 64), 10), (1, 28, 28, 1))
  convolutions = 9 * 32 + 32 + 9 * 32 * 64 + 64
  assert sum(stack.values()) == convolutions + 7 * 7 * 64 * 128 + 128 + 128 * 10 + 10


@pytest.mark.parametrize('norm', ['batch', 'layer', 'group'])
def test_no_bias_where_a_norm_follows(norm):
  names = sizes(ConvNet((16,), 3, hidden_sizes=(8,), convs_per_stage=2, norm=norm), (1, 12, 12, 1))
  biases = {name for name in names if name.endswith('bias') and 'norm' not in name}
  assert biases == {'head/bias'}
  assert sum('norm' in name and name.endswith('scale') for name in names) == 3


def test_dropout_drops_whole_channels_in_training_alone():
  model, plain = ConvNet((32,), 2, hidden_sizes=(), channel_dropout_rate=0.5), ConvNet((32,), 2, hidden_sizes=())
  variables = model.init(KEY, IMAGES)
  np.testing.assert_array_equal(model.apply(variables, IMAGES), plain.apply(variables, IMAGES))

  def maps(rate):
    model = ConvNet(
      (32,), 2, hidden_sizes=(), channel_dropout_rate=rate, activation='sigmoid'
    )  # nowhere zero of itself
    options = {'capture_intermediates': True, 'mutable': ['intermediates'], 'rngs': {'dropout': KEY}}
    return np.asarray(model.apply(variables, IMAGES, True, **options)[1]['intermediates']['Dropout_0']['__call__'][0])

  alive = (maps(0.5) != 0).sum((1, 2))  # of the 36 places of each channel
  assert set(alive.flatten()) == {0, 36}
  np.testing.assert_allclose(maps(0.5), np.where(alive[:, None, None] > 0, 2 * maps(0.0), 0), rtol=1e-6)


@pytest.mark.parametrize('dense', [(), (16,)])
def test_dropout_before_each_dense_layer_acts_in_training_alone(dense):
  model, plain = ConvNet((32,), 2, dense, dropout_rate=0.5), ConvNet((32,), 2, dense)
  variables = model.init(KEY, IMAGES)
  np.testing.assert_array_equal(model.apply(variables, IMAGES), plain.apply(variables, IMAGES))
  options = {'capture_intermediates': True, 'mutable': ['intermediates'], 'rngs': {'dropout': KEY}}
  seen = model.apply(variables, IMAGES, True, **options)[1]['intermediates']
  before = [seen[f'Dropout_{number + 1}']['__call__'][0] for number in range(len(dense) + 1)]  # 0 is the stage's
  assert all((np.asarray(hidden) == 0).mean() > 0.2 for hidden in before)


def test_a_pixel_reaches_the_logits_of_its_own_image_alone():
  model = ConvNet((8,), 3, hidden_sizes=(4,))
  variables = model.init(KEY, IMAGES)
  gradient = jax.grad(lambda x: model.apply(variables, x)[1].sum())(IMAGES)
  assert (gradient[1] != 0).any()
  np.testing.assert_array_equal(np.delete(gradient, 1, 0), 0)


@pytest.mark.parametrize(
  ('options', 'message'),
  [
    ({'channels': (4, 4, 4, 4, 4)}, 'a window of 2x2 on feature maps of 1x1: use fewer stages'),
    ({'channels': (0,)}, r'channels=\(0,\): each must be a whole number of at least 1'),
    ({'hidden_sizes': (-1,)}, r'hidden_sizes=\(-1,\)'),
    ({'channels': ()}, r'channels=\(\): must have at least one entry'),
    ({'convs_per_stage': 0}, 'convs_per_stage=0'),
    ({'kernel_size': 0}, 'kernel_size=0'),
    ({'num_classes': 0}, 'num_classes=0'),
    ({'channel_dropout_rate': 1.0}, 'channel_dropout_rate=1.0: must be at least 0 and less than 1'),
    ({'dropout_rate': -0.1}, 'dropout_rate=-0.1'),
    ({'dropout_rate': 1.0}, 'dropout_rate=1.0'),
  ],
)
def test_sizes_that_cannot_be_are_told_in_one_line(options, message):
  with pytest.raises(ConfigError, match=message):
    model = ConvNet(**{'channels': (4,), 'num_classes': 3, **options})
    jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((2, 8, 8, 1)))
