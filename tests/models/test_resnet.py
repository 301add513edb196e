"""Residual networks: published sizes, and behavior."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from research.errors import ConfigError
from research.models.resnet import ResNet, convolution, resnet

KEY = jax.random.key(0)
IMAGES = jax.random.normal(jax.random.key(1), (4, 8, 8, 2))


def sizes(model, shape=(1, 224, 224, 3)):
  variables = jax.eval_shape(model.init, KEY, jax.ShapeDtypeStruct(shape, jnp.float32))
  paths = jax.tree.leaves_with_path(variables['params'])
  return {jax.tree_util.keystr(path, simple=True, separator='/'): leaf.size for path, leaf in paths}


# torchvision's counts of its models resnet18, resnet34 and resnet50 (v1, 1,000 classes).
@pytest.mark.parametrize(('depth', 'count'), [(18, 11_689_512), (34, 21_797_672), (50, 25_557_032)])
def test_published_sizes(depth, count):
  assert sum(sizes(resnet(depth, 1000)).values()) == count


def test_resnet20_for_small_images_has_its_270_thousand():  # He et al. 2015, table 6
  count = sum(sizes(resnet(20, 10), (1, 32, 32, 3)).values())
  projections = 16 * 32 + 2 * 32 + 32 * 64 + 2 * 64  # which the paper's shortcuts go without
  assert count - projections == 269_722


@pytest.mark.parametrize('bottleneck', [False, True])
def test_sizes_of_version_2_by_hand(bottleneck):
  """A block has a norm before each convolution, and a projection where channels change."""
  model = ResNet((2, 2), 3, width=4, preactivation=True, bottleneck=bottleneck)
  count, channels = 9 * 2 * 4, 4  # the stem
  for width in (4, 4, 8, 8):
    if bottleneck:
      outputs = 4 * width
      count += 2 * channels + channels * width + 2 * width + 9 * width**2 + 2 * width + width * outputs
    else:
      outputs = width
      count += 2 * channels + 9 * channels * width + 2 * width + 9 * width**2
    count += channels * outputs * (channels != outputs)
    channels = outputs
  assert sum(sizes(model, (1, 8, 8, 2)).values()) == count + 2 * channels + 3 * channels + 3


def test_convolutions_begin_with_the_variance_of_he():
  kernel = convolution(64, 3, 1, 'conv').init(KEY, jnp.zeros((1, 4, 4, 32)))['params']['kernel']
  assert float(kernel.std()) == pytest.approx(np.sqrt(2 / (9 * 64)), rel=0.03)


@pytest.mark.parametrize('preactivation', [False, True])
def test_groups_are_of_the_channels_that_there_are(preactivation):
  """Images of 8 pixels and 4 channels: a group size taken from another axis would not divide them."""
  model = ResNet((1, 1), 3, width=4, norm='group', preactivation=preactivation)
  jax.eval_shape(model.init, KEY, IMAGES)


@pytest.mark.parametrize('options', [{}, {'preactivation': True}, {'norm': 'group'}, {'bottleneck': True}])
def test_the_classifier_has_the_only_bias_that_no_norm_has(options):
  names = sizes(resnet(8, 10, **options), (1, 28, 28, 1))
  assert {name for name in names if name.endswith('bias') and 'norm' not in name} == {'head/bias'}


def blocks_of(options):
  """What the layers of both blocks of a network of one stage give at its start."""
  model = ResNet((2,), 3, width=4, **options)
  variables = model.init(KEY, IMAGES)
  _, state = model.apply(variables, IMAGES, True, capture_intermediates=True, mutable=['intermediates', 'batch_stats'])
  return [state['intermediates'][f'block_{n}'] for n in range(2)]


def features(options):
  """Outputs of both blocks."""
  return [np.asarray(block['__call__'][0]) for block in blocks_of(options)]


@pytest.mark.parametrize(
  ('options', 'last', 'after'),
  [({'zero_init_residual': False}, 'norm_1', nn.relu), ({'preactivation': True}, 'conv_1', lambda x: x)],
)
def test_a_block_adds_what_its_last_layer_gives_to_its_input(options, last, after):
  first, second = blocks_of(options)
  inputs, added = first['__call__'][0], second[last]['__call__'][0]
  np.testing.assert_allclose(second['__call__'][0], after(inputs + added), atol=1e-6)
  assert np.abs(added).max() > 0.1


def test_blocks_begin_as_the_identity_with_zero_scale():
  first, second = features({'zero_init_residual': True})
  np.testing.assert_array_equal(first, second)
  first, second = features({'zero_init_residual': False})
  assert np.abs(first - second).max() > 0.1


def test_preactivation_leaves_the_shortcut_without_relu():
  first, _ = features({'preactivation': True})
  assert (first < 0).any()
  first, _ = features({'zero_init_residual': False})
  assert (first >= 0).all()


@pytest.mark.parametrize('norm', ['batch', 'group'])
def test_examples_meet_in_batch_statistics_alone(norm):
  model = ResNet((1,), 3, width=4, norm=norm, zero_init_residual=False)
  variables = jax.jit(model.init)(KEY, IMAGES)
  train = jax.jit(lambda x: model.apply(variables, x, True, mutable=['batch_stats']))
  logits, changed = train(IMAGES)
  others, _ = train(IMAGES.at[1:].multiply(3.0))
  assert bool(changed) == (norm == 'batch')
  assert np.allclose(logits[0], others[0], atol=1e-5) == (norm == 'group')


def test_stages_halve_the_image_and_double_the_channels():
  model = resnet(8, 10)
  images = jax.ShapeDtypeStruct((2, 28, 28, 1), jnp.float32)
  state = jax.eval_shape(lambda x: model.init_with_output(KEY, x, capture_intermediates=True)[1], images)
  shapes = [state['intermediates'][f'block_{n}']['__call__'][0].shape for n in range(3)]
  assert shapes == [(2, 28, 28, 16), (2, 14, 14, 32), (2, 7, 7, 64)]


def test_unknown_depth_is_refused():
  with pytest.raises(ConfigError, match='depth=19: no such ResNet'):
    resnet(19, 10)


@pytest.mark.parametrize(('stem', 'side'), [('plain', 33), ('pooled', 16), ('large', 9)])
def test_stem_shrinks_the_image(stem, side):
  model = ResNet((1,), 3, width=4, stem=stem)
  images = jax.ShapeDtypeStruct((1, 33, 33, 1), jnp.float32)
  state = jax.eval_shape(lambda x: model.init_with_output(KEY, x, capture_intermediates=True)[1], images)
  assert state['intermediates']['block_0']['__call__'][0].shape == (1, side, side, 4)


@pytest.mark.parametrize(
  'make, message',
  [
    (lambda: ResNet((1,), 3, stem='big'), "stem='big': is unknown; nearest: plain, pooled, large"),
    (lambda: ResNet((1, -1), 3), r'stage_sizes=\(1, -1\): each must be'),
    (lambda: ResNet((1,), 3, width=0), 'width=0'),
    (lambda: ResNet((1,), 0), 'num_classes=0'),
  ],
)
def test_what_cannot_be_is_refused(make, message):
  with pytest.raises(ConfigError, match=message):
    make()
