"""Two networks against each other: one Task with two optimizers."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from jax import Array

from research import random
from research.errors import check_counts
from research.metrics import Mean, Metrics, mean
from research.tasks.accumulate import accumulated
from research.tasks.base import (
  State,
  Task,
  Totals,
  mean_gradient,
  reduce,
  total_gradient,
  unless_empty,
  without_masked_inputs,
)
from research.tasks.precision import computing_in, first_loss_scale, scaled, unless_overflow, unscaled
from research.types import Batch, PyTree

GENERATOR, DISCRIMINATOR = 'generator', 'discriminator'


def adversarial(
  generator: nn.Module,
  discriminator: nn.Module,
  latent_dim: int,
  generator_optimizer: optax.GradientTransformation,
  discriminator_optimizer: optax.GradientTransformation,
  critic_steps: int = 1,
  precision: str = 'float32',
  accumulate: int = 1,
  axis_name: str = '',
) -> Task:
  """Task of a generator that learns to draw examples which a discriminator cannot tell from real ones.

  Both minimise the non-saturating logistic loss (Goodfellow et al. 2014, section 3).

  Args:
    generator: noise [batch, latent_dim] -> examples of the shape of `batch['inputs']`.
    discriminator: examples -> logits [batch, 1], positive for real ones.
    latent_dim: size of the noise; each example draws its own, by its index.
    generator_optimizer: updates the generator, once a step.
    discriminator_optimizer: updates the discriminator, `critic_steps` times a step before the generator.
    critic_steps: updates of the discriminator in a step, each against new noise.
    precision: what both networks compute in, one of `research.tasks.precision.PRECISIONS`.
    accumulate: micro-batches that the batch of every update is taken in.
    axis_name: mapped axis of devices that each see a part of the batch (pmap); '' where all is seen.

  Raises ConfigError for a number below 1.
  """
  check_counts(latent_dim=latent_dim, critic_steps=critic_steps, accumulate=accumulate)
  networks = {GENERATOR: computing_in(precision, generator), DISCRIMINATOR: computing_in(precision, discriminator)}
  optimizers = {GENERATOR: generator_optimizer, DISCRIMINATOR: discriminator_optimizer}

  def generate(params: PyTree, batch: Batch, key: Array) -> Array:
    keys = random.per_example(key, batch['index'])
    noise = jax.vmap(lambda key: jax.random.normal(key, (latent_dim,)))(keys)
    return networks[GENERATOR].apply({'params': params[GENERATOR]}, noise)

  def discriminate(params: PyTree, inputs: Array) -> Array:
    return networks[DISCRIMINATOR].apply({'params': params[DISCRIMINATOR]}, inputs).squeeze(1)

  def generator_loss(params: PyTree, batch: Batch, key: Array) -> tuple[Mean, Metrics, PyTree]:
    logits = discriminate(params, generate(params, batch, key))
    return mean(jax.nn.softplus(-logits), batch.get('mask')), {}, {}

  def discriminator_loss(params: PyTree, batch: Batch, key: Array) -> tuple[Mean, Metrics, PyTree]:
    real = discriminate(params, batch['inputs'])
    fake = discriminate(params, generate(params, batch, key))
    right = ((real > 0).astype(real.dtype) + (fake < 0).astype(real.dtype)) / 2
    loss = jax.nn.softplus(-real) + jax.nn.softplus(fake)
    return mean(loss, batch.get('mask')), {'accuracy': mean(right, batch.get('mask'))}, {}

  def init(key: Array, batch: Batch) -> State:
    noise = jnp.zeros(latent_dim)[None]
    params = {
      GENERATOR: generator.init(random.stream(key, GENERATOR), noise)['params'],
      DISCRIMINATOR: discriminator.init(random.stream(key, DISCRIMINATOR), batch['inputs'])['params'],
    }
    opt_state = {name: optimizers[name].init(nn.unbox(params[name])) for name in params}
    return State(jnp.zeros((), jnp.int32), params, first_loss_scale(precision), opt_state, {}, {})

  def update(player: str, loss: Callable, state: State, batch: Batch, key: Array) -> tuple[State, Metrics]:
    def gradient(state: State, batch: Batch, key: Array, number: int | Array) -> tuple[Totals, PyTree]:
      def scaled_loss(own: PyTree) -> tuple[Mean, Metrics, PyTree]:
        value, *rest = loss({**state.params, player: own}, batch, key)
        return scaled(value, state), *rest

      return total_gradient(scaled_loss, state.params[player])

    totals, _ = accumulated(gradient, accumulate)(state, batch, key)
    totals = unscaled(reduce(totals, axis_name), state)
    gradients = mean_gradient(totals)
    updates, opt_state = optimizers[player].update(gradients, state.opt_state[player], state.params[player])
    params = {**state.params, player: optax.apply_updates(state.params[player], updates)}
    new = state.replace(params=params, opt_state={**state.opt_state, player: opt_state})
    new = unless_empty(unless_overflow(new, state, gradients), state, totals.loss)
    return new, {f'{player}_loss': totals.loss, **totals.metrics}

  def train_step(state: State, batch: Batch, key: Array) -> tuple[State, Metrics]:
    batch = without_masked_inputs(batch)
    for turn in range(critic_steps):
      noise = random.stream(key, DISCRIMINATOR, turn)
      state, critic = update(DISCRIMINATOR, discriminator_loss, state, batch, noise)
    noise = random.stream(key, GENERATOR)
    state, metrics = update(GENERATOR, generator_loss, state, batch, noise)
    return state.replace(step=state.step + 1), {**critic, **metrics}

  def eval_step(state: State, batch: Batch, key: Array) -> Metrics:
    value, metrics, _ = discriminator_loss(state.params, batch, random.stream(key, DISCRIMINATOR))
    generated, *_ = generator_loss(state.params, batch, random.stream(key, GENERATOR))
    return {f'{DISCRIMINATOR}_loss': value, f'{GENERATOR}_loss': generated, **metrics}

  return Task(init, train_step, eval_step)
