"""Blocks computed anew in the backward pass: the same names, noise, statistics and gradients in less memory."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research.errors import ConfigError
from research.models.cnn import ConvNet, LeNet5
from research.models.mlp import MLP
from research.models.remat import with_remat
from research.models.resnet import ResNet
from research.models.views import TenViews
from research.train.config import REMAT

KEY = jax.random.key(0)
KEEP_BARRIERS = {'xla_disable_hlo_passes': 'cse_barrier_expander'}  # see remat
MODELS = {
  'mlp': MLP((8, 8), 3, dropout_rate=0.5, norm='batch', residual=True),
  'cnn': ConvNet((4, 4), 3, (8,), convs_per_stage=2, norm='batch', channel_dropout_rate=0.5, dropout_rate=0.5),
  'resnet': ResNet((1, 1), 3, width=4, zero_init_residual=False),
  'resnet_v2': TenViews(ResNet((1, 1), 3, width=4, preactivation=True)),
}


def images(count: int = 4, side: int = 8) -> jax.Array:
  return jax.random.normal(jax.random.key(1), (count, side, side, 1))


def gradient(model):
  def loss(params, variables, inputs):
    rngs = {'dropout': jax.random.key(2)}
    logits, changed = model.apply({**variables, 'params': params}, inputs, True, rngs=rngs, mutable=['batch_stats'])
    return jnp.square(logits).sum(), changed

  return jax.jit(jax.grad(loss, has_aux=True))


# Every model hands its policy on in the same way.
@pytest.mark.parametrize(
  ('name', 'policies'), [('mlp', REMAT), *((name, REMAT[:1]) for name in MODELS if name != 'mlp')]
)
def test_names_statistics_noise_and_gradients_are_the_same(name, policies, x64):
  inputs, model = images(), MODELS[name]
  plain = jax.jit(model.init)(KEY, inputs)
  expected = gradient(model)(plain['params'], plain, inputs)
  for policy in policies:
    other = with_remat(model, policy)
    variables = jax.jit(other.init)(KEY, inputs)
    jax.tree.map(np.testing.assert_array_equal, variables, plain)
    lowered = gradient(other).lower(plain['params'], plain, inputs)
    got = lowered.compile(compiler_options=KEEP_BARRIERS)(plain['params'], plain, inputs)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12), got, expected)


def temporary_bytes(model, inputs) -> int:
  inputs = jax.ShapeDtypeStruct(inputs, jnp.float32)
  variables = jax.eval_shape(model.init, KEY, inputs)
  lowered = gradient(model).lower(variables['params'], variables, inputs)
  return lowered.compile(compiler_options=KEEP_BARRIERS).memory_analysis().temp_size_in_bytes


@pytest.mark.parametrize(
  ('model', 'inputs', 'share'),
  [
    (ResNet((6,), 3, width=8), (128, 16, 16, 1), 0.5),
    (ConvNet((8, 16, 32), 3, (), convs_per_stage=3), (128, 16, 16, 1), 0.8),
    (MLP((64,) * 12, 3, 'gelu', dropout_rate=0.1), (2048, 64), 0.5),
  ],
)
def test_a_deep_model_takes_less_memory(model, inputs, share):
  plain, anew = (temporary_bytes(with_remat(model, policy), inputs) for policy in ('', 'everything'))
  assert anew < share * plain


def test_a_wrapped_model_is_reached_and_off_is_the_model_itself():
  model = TenViews(ResNet((1,), 3))
  assert with_remat(model, 'dots_saveable') == TenViews(ResNet((1,), 3, remat='dots_saveable'))
  assert with_remat(model, '') is model


def test_a_model_without_blocks_is_refused():
  for model in (LeNet5(3), TenViews(LeNet5(3))):
    with pytest.raises(ConfigError, match=r"config.remat='everything': LeNet5 has no blocks"):
      with_remat(model, 'everything')


def test_an_unknown_policy_is_refused():
  with pytest.raises(ConfigError, match="remat='dots': must be everything or a policy"):
    jax.eval_shape(MLP((4,), 3, remat='dots').init, jax.random.key(0), jnp.zeros((2, 4)))
