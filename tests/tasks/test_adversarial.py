"""Two players: losses and gradients by formula, each moves itself alone, and together they learn a ring."""

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn

from launch.flags import load_config
from research import random
from research.errors import ConfigError
from research.tasks.adversarial import adversarial, variables_of
from research.tasks.base import evaluation_variables
from research.tasks.descend import Compute
from research.train.loop import train

KEY = jax.random.key(5)
OPTIMIZERS = ('generator_optimizer', 'discriminator_optimizer')
RATES = {'generator': 0.3, 'discriminator': 0.2}
PLAYERS = {'norm': '', 'dropout_rate': 0.0, 'ema_decay': 0.0}
RING = Path(__file__).parents[1] / 'configs' / 'ring.py'


class Affine(nn.Module):
  outputs: int

  @nn.compact
  def __call__(self, inputs, train=False):
    return nn.Dense(self.outputs, name='dense')(inputs)


def make(critic_steps: int = 1, **options):
  rates = (optax.sgd(RATES['generator']), optax.sgd(RATES['discriminator']))
  return adversarial(Affine(2), Affine(1), 3, *rates, critic_steps=critic_steps, **options)


def batch(count: int = 8) -> dict:
  inputs = np.random.default_rng(0).normal(2, 1, (count, 2)).astype(np.float32)
  return {'inputs': inputs, 'index': np.arange(count, dtype=np.int32)}


def noise(key: jax.Array, index: np.ndarray) -> np.ndarray:
  return np.stack([jax.random.normal(jax.random.fold_in(key, number), (3,)) for number in index])


def affine(params, inputs) -> np.ndarray:
  return inputs @ np.array(params['dense']['kernel'], np.float64) + np.array(params['dense']['bias'], np.float64)


def sigmoid(x: np.ndarray) -> np.ndarray:
  return 1 / (1 + np.exp(-x))


def test_norms_are_those_of_each_player():
  task, data = make(compute=Compute(log_norms=True)), batch()
  _, metrics = jax.jit(task.train_step)(task.init(KEY, data), data, KEY)
  for player, rate in RATES.items():
    gradient, update = (metrics[f'{player}_{name}_norm'].total for name in ('gradient', 'update'))
    assert gradient > 0
    np.testing.assert_allclose(update, rate * gradient, rtol=1e-6)  # of SGD


def test_a_step_is_that_of_the_non_saturating_game():
  """Goodfellow et al. 2014: the discriminator's gradient is -(1 - D(x)) x + D(G(z)) G(z), then -(1 - D(G(z))) w."""
  task, data = make(), batch()
  state = task.init(KEY, data)
  new, metrics = jax.jit(task.train_step)(state, data, KEY)
  old, real = state.params, data['inputs'].astype(np.float64)

  fake = affine(old['generator'], noise(random.stream(KEY, 'discriminator', 0), data['index']))
  real_logit, fake_logit = affine(old['discriminator'], real), affine(old['discriminator'], fake)
  gradient = (-(1 - sigmoid(real_logit)) * real + sigmoid(fake_logit) * fake).mean(0)
  kernel = np.array(old['discriminator']['dense']['kernel'], np.float64)[:, 0] - RATES['discriminator'] * gradient
  np.testing.assert_allclose(new.params['discriminator']['dense']['kernel'][:, 0], kernel, rtol=1e-5)
  loss = np.log1p(np.exp(-real_logit)) + np.log1p(np.exp(fake_logit))
  np.testing.assert_allclose(metrics['discriminator_loss'].total, loss.sum(), rtol=1e-5)
  right = ((real_logit > 0).mean() + (fake_logit < 0).mean()) / 2
  np.testing.assert_allclose(metrics['accuracy'].total / metrics['accuracy'].count, right, rtol=1e-6)

  latent = noise(random.stream(KEY, 'generator'), data['index'])
  logit = affine(new.params['discriminator'], affine(old['generator'], latent))  # against the updated one
  gradient = latent.T @ (-(1 - sigmoid(logit)) * kernel) / len(latent)
  expected = np.array(old['generator']['dense']['kernel']) - RATES['generator'] * gradient
  np.testing.assert_allclose(new.params['generator']['dense']['kernel'], expected, rtol=1e-4)
  np.testing.assert_allclose(metrics['generator_loss'].total, np.log1p(np.exp(-logit)).sum(), rtol=1e-5)
  assert new.step == 1


@pytest.mark.parametrize(('still', 'moving'), [('generator', 'discriminator'), ('discriminator', 'generator')])
def test_neither_player_is_moved_by_the_other_s_optimizer(still, moving):
  rates = {still: optax.sgd(0.0), moving: optax.sgd(0.5)}
  task = adversarial(Affine(2), Affine(1), 3, rates['generator'], rates['discriminator'], critic_steps=2)
  state = task.init(KEY, batch())
  new, _ = task.train_step(state, batch(), KEY)
  jax.tree.map(np.testing.assert_array_equal, new.params[still], state.params[still])
  change = jax.tree.map(lambda a, b: float(jnp.abs(a - b).max()), new.params[moving], state.params[moving])
  assert min(jax.tree.leaves(change)) > 1e-4


def test_several_critic_steps_are_single_ones_with_noise_of_their_own():
  data = batch()
  state = make().init(KEY, data)
  counted = adversarial(Affine(2), Affine(1), 3, optax.sgd(0.0), optax.adam(0.1), critic_steps=3)
  new, _ = counted.train_step(counted.init(KEY, data), data, KEY)
  assert new.opt_state['discriminator'][0].count == 3
  one, three = (make(steps).train_step(state, data, KEY)[0].params['discriminator'] for steps in (1, 3))
  assert float(jnp.abs(one['dense']['kernel'] - three['dense']['kernel']).max()) > 1e-3


def test_padded_examples_count_for_nothing():
  task, data = make(), batch()
  state = task.init(KEY, data)
  ends = []
  for filler in (0, np.nan):
    inputs = np.concatenate([data['inputs'][:6], np.full((2, 2), filler, np.float32)])
    mask = np.array([1] * 6 + [0] * 2, np.float32)
    ends.append(task.train_step(state, {**data, 'inputs': inputs, 'mask': mask}, KEY))
  jax.tree.map(np.testing.assert_array_equal, *ends)
  assert ends[0][1]['discriminator_loss'].count == 6


def test_a_batch_that_counts_nothing_moves_neither_player():
  task = adversarial(Affine(2), Affine(1), 3, optax.adamw(0.1), optax.adamw(0.1), critic_steps=2)
  step, data = jax.jit(task.train_step), {**batch(), 'mask': np.ones(8, np.float32)}
  state, _ = step(task.init(KEY, data), data, KEY)
  same, metrics = step(state, {**data, 'mask': np.zeros(8, np.float32)}, KEY)
  jax.tree.map(np.testing.assert_array_equal, same, state.replace(step=state.step + 1))
  assert metrics['generator_loss'] == metrics['discriminator_loss'] == (0, 0)


class Normed(nn.Module):
  outputs: int

  @nn.compact
  def __call__(self, inputs, train=False):
    return Affine(self.outputs)(nn.BatchNorm(not train, momentum=0.9, name='norm')(inputs))


def test_statistics_of_each_player_move_with_its_own_updates():
  still = dict.fromkeys(OPTIMIZERS, optax.sgd(0.0))
  task, data = adversarial(Normed(2), Normed(1), 3, **still, preprocess=halved), batch()
  state = task.init(KEY, data)
  new, _ = jax.jit(task.train_step)(state, data, KEY)
  latents = [noise(random.stream(KEY, *stream), data['index']) for stream in (('generator',), ('discriminator', 0))]
  statistics = new.mutable['batch_stats']
  np.testing.assert_allclose(statistics['generator']['norm']['mean'], 0.1 * latents[0].mean(0), rtol=1e-4, atol=1e-6)
  normed = (latents[1] - latents[1].mean(0)) / np.sqrt(latents[1].var(0) + 1e-5)
  real, fake = data['inputs'] / 2, affine({'dense': state.params['generator']['Affine_0']['dense']}, normed)
  expected = 0.9 * 0.1 * real.mean(0) + 0.1 * fake.mean(0)
  np.testing.assert_allclose(statistics['discriminator']['norm']['mean'], expected, rtol=1e-4, atol=1e-6)
  assert variables_of(evaluation_variables(new), 'generator').keys() == {'params', 'batch_stats'}


def halved(data: dict) -> dict:
  return {**data, 'inputs': data['inputs'] / 2}


def test_averages_of_both_players_follow_their_formula_and_are_those_evaluated():
  decay, data = 0.2, batch()
  task = adversarial(Affine(2), Affine(1), 3, *map(optax.sgd, RATES.values()), critic_steps=1, ema_decay=decay)
  state, step = task.init(KEY, data), jax.jit(task.train_step)
  average = jax.tree.map(np.array, state.params)
  for number in range(4):
    state, _ = step(state, data, jax.random.key(number))
    rate = min(decay, (1 + number) / (10 + number))
    average = jax.tree.map(lambda old, new: rate * old + (1 - rate) * np.array(new), average, state.params)  # noqa: B023
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7), state.ema['params'], average)
  as_averaged = state.replace(params=average, ema={})
  found, expected = (task.eval_step(it, data, KEY)['discriminator_loss'].total for it in (state, as_averaged))
  np.testing.assert_allclose(found, expected, rtol=1e-5)
  assert abs(found / task.eval_step(state.replace(ema={}), data, KEY)['discriminator_loss'].total - 1) > 1e-4


def test_it_learns_a_ring_of_eight_gaussians():
  config = dataclasses.replace(
    load_config(str(RING)), **PLAYERS, steps=1_200, batch_size=256, critic_steps=1, log_every=600, eval_every=0
  )
  *_, last = train(config)
  assert last.metrics['validation/modes'] >= 7 and last.metrics['validation/near'] > 0.6
  assert 0.5 < last.metrics['validation/accuracy'] < 0.85  # the discriminator is seldom sure


@pytest.mark.parametrize('name', ['latent_dim', 'critic_steps'])
def test_a_number_below_one_is_refused(name):
  with pytest.raises(ConfigError, match=f'{name}=0'):
    adversarial(Affine(2), Affine(1), **{'latent_dim': 2, name: 0}, **dict.fromkeys(OPTIMIZERS, optax.sgd(0.1)))


def test_an_evaluation_is_the_losses_of_both_by_noise_of_its_own():
  task, data = make(), batch()
  state = task.init(KEY, data)
  found = task.eval_step(state, data, KEY)
  fake = affine(state.params['generator'], noise(random.stream(KEY, 'discriminator'), data['index']))
  real_logit, fake_logit = (affine(state.params['discriminator'], x) for x in (data['inputs'], fake))
  loss = np.log1p(np.exp(-real_logit)) + np.log1p(np.exp(fake_logit))
  np.testing.assert_allclose(found['discriminator_loss'].total, loss.sum(), rtol=1e-5)
  fake = affine(state.params['generator'], noise(random.stream(KEY, 'generator'), data['index']))
  loss = np.log1p(np.exp(-affine(state.params['discriminator'], fake)))
  np.testing.assert_allclose(found['generator_loss'].total, loss.sum(), rtol=1e-5)


def test_a_discriminator_without_an_opinion_is_right_about_neither():
  task, data = make(), batch()
  state = task.init(KEY, data)
  state = state.replace(params=jax.tree.map(jnp.zeros_like, state.params))
  assert task.eval_step(state, data, KEY)['accuracy'].total == 0
