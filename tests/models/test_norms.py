"""Norms against numpy in float64, far from zero, where E[x^2] - E[x]^2 leaves nothing in float32."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from research.errors import ConfigError
from research.models.norms import norm

KEY = jax.random.key(0)
X = np.random.default_rng(0).normal(2_000, 1, (16, 6, 32)).astype(np.float32)
LENGTHS = np.random.default_rng(1).integers(1, 7, 16)
LENGTHS[:2] = 0  # all that a device has
MASK = np.broadcast_to((np.arange(6) < LENGTHS[:, None])[..., None], X.shape)


def expected(kind, x, mask=None):
  """Normalized values, and the mean and the variance that they have by then."""
  groups = {'batch': x.reshape(*x.shape, 1), 'layer': x[..., None], 'group': x.reshape(16, 6, 2, 16)}[kind]
  axes = {'batch': (0, 1), 'layer': (2,), 'group': (1, 3)}[kind]
  wide = np.ma.array(groups.astype(np.float64), mask=False if mask is None else ~mask.reshape(groups.shape))
  mean, variance = wide.mean(axes, keepdims=True), wide.var(axes, keepdims=True)
  return ((wide - mean) / np.sqrt(variance)).reshape(x.shape), mean.ravel(), variance.ravel()


def apply(kind, x, mask=None, axis_name=''):
  layer = norm(kind, 32, train=True, name='norm', axis_name=axis_name)
  variables = norm(kind, 32, train=True, name='norm').init(KEY, x[:1])
  masks = () if mask is None else (jnp.asarray(mask),)
  return layer.apply(variables, x, *masks, mutable=['batch_stats'])


def close(got, wanted):
  np.testing.assert_allclose(np.ma.array(got, mask=wanted.mask), wanted, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize('kind', ['batch', 'layer', 'group'])
def test_far_from_zero_the_deviation_is_one(kind):
  y, changed = jax.jit(lambda x: apply(kind, x))(X)
  wanted, mean, variance = expected(kind, X)
  close(y, wanted)
  if kind == 'batch':
    np.testing.assert_allclose(changed['batch_stats']['mean'], 0.1 * mean, rtol=1e-6)
    np.testing.assert_allclose(changed['batch_stats']['var'], 0.9 + 0.1 * variance, rtol=1e-4)


@pytest.mark.parametrize('kind', ['batch', 'group'])
def test_masked_positions_count_in_no_statistic(kind):
  real = LENGTHS > 0
  mask = MASK if kind == 'batch' else MASK | ~real[:, None, None]
  close(apply(kind, jnp.where(mask, X, jnp.nan), mask)[0], expected(kind, X, mask)[0])


@pytest.mark.parametrize('masked', [False, True])
def test_devices_share_the_statistics_whatever_each_of_them_masks(masked):
  parts = [X.reshape(8, 2, 6, 32), *([MASK.reshape(8, 2, 6, 32)] if masked else [])]
  y, changed = jax.pmap(lambda *given: apply('batch', *given, axis_name='data'), axis_name='data')(*parts)
  wanted, mean, variance = expected('batch', X, MASK if masked else None)
  close(np.asarray(y).reshape(X.shape), wanted)
  for device in (0, 7):
    statistics = changed['batch_stats']
    np.testing.assert_allclose(statistics['mean'][device], 0.1 * mean, rtol=1e-6)
    np.testing.assert_allclose(statistics['var'][device], 0.9 + 0.1 * variance, rtol=1e-4)


def test_a_mesh_shares_the_statistics():
  mesh = jax.make_mesh((8,), ('data',), axis_types=(jax.sharding.AxisType.Auto,))
  x = jax.device_put(X, NamedSharding(mesh, PartitionSpec('data')))
  close(jax.jit(lambda x: apply('batch', x)[0])(x), expected('batch', X)[0])


@pytest.mark.parametrize('kind', ['batch', 'group'])
def test_where_nothing_counts_there_is_no_gradient_and_nothing_is_nan(kind):
  def total(x):
    return jnp.sum(apply(kind, x, np.zeros_like(MASK))[0] * MASK)

  assert np.isfinite(jax.grad(total)(jnp.zeros_like(X))).all()


@pytest.mark.parametrize(
  ('kind', 'axes', 'epsilon'), [('batch', (), 1e-5), ('layer', 2, 1e-6), ('group', (1, 2), 1e-5)]
)
def test_what_is_normalized_is_scaled_and_shifted_in_evaluation_by_running_statistics(kind, axes, epsilon):
  random = np.random.default_rng(2)
  x = random.normal(3, 0.01, (5, 6, 4)).astype(np.float32)  # a variance beside which epsilon counts
  params = {name: random.normal(1, 0.3, 4).astype(np.float32) for name in ('scale', 'bias')}
  statistics = {'mean': random.normal(3, 0.1, 4).astype(np.float32), 'var': np.full(4, 1e-4, np.float32)}
  mean, variance = x.mean(axes, keepdims=True), x.astype(float).var(axes, keepdims=True)
  if kind == 'batch':
    mean, variance = statistics['mean'], statistics['var']
  layer = norm(kind, 4, train=False, name='norm')
  found = layer.apply({'params': params, 'batch_stats': statistics}, x)
  wanted = (x - mean) / np.sqrt(variance + epsilon) * params['scale'] + params['bias']
  np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=1e-3)


def test_channels_that_make_no_whole_groups_are_refused():
  with pytest.raises(ConfigError, match="'group' of 24 channels; must be fewer than 16, or a multiple of it"):
    norm('group', 24, train=True, name='norm')
