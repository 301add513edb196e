"""Adversarial training: one Task with two optimizers."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from jax import Array

from research import random
from research.errors import check_counts, check_range
from research.metrics import Mean, Metrics, mean
from research.tasks.base import (
  State,
  Task,
  collections_of,
  evaluation_variables,
  loss_scale,
  variables,
  without_masked_inputs,
)
from research.tasks.descend import PLAIN, Compute, descend, first_average
from research.tasks.expects import expected_by
from research.tasks.precision import computing_in, first_loss_scale
from research.types import Batch, Model, PyTree

GENERATOR, DISCRIMINATOR = 'generator', 'discriminator'


def adversarial(
  generator: nn.Module,
  discriminator: nn.Module,
  latent_dim: int,
  generator_optimizer: optax.GradientTransformation,
  discriminator_optimizer: optax.GradientTransformation,
  critic_steps: int = 1,
  preprocess: Callable[[Batch], Batch] = lambda batch: batch,
  ema_decay: float = 0.0,
  compute: Compute = PLAIN,
) -> Task:
  """Task of training a generator against a discriminator.

  Both minimize the non-saturating logistic loss (Goodfellow et al. 2014, section 3). The collections of the State have
  an entry per player; its statistics and averages change only with its own updates.

  Args:
    generator: (noise [batch, latent_dim], train) -> examples of the shape of preprocessed `batch['inputs']`.
    discriminator: (examples, train) -> logits [batch, 1], positive for real ones.
    latent_dim: size of the noise, which is drawn per example, by its index.
    generator_optimizer: updates the generator, once per step.
    discriminator_optimizer: updates the discriminator, `critic_steps` times per step, before the generator.
    critic_steps: discriminator updates per step, each with new noise.
    preprocess: turns raw inputs into what the generator should produce, in training and evaluation.
    ema_decay: decay of the averaged parameters and batch statistics used in evaluation; 0 evaluates the raw ones.
    compute: precision, micro-batches and mapped axis of devices.

  Raises ConfigError for a count below 1 and for `ema_decay` out of range.
  """
  check_counts(latent_dim=latent_dim, critic_steps=critic_steps)
  check_range('ema_decay', ema_decay, below=1)
  networks = {GENERATOR: generator, DISCRIMINATOR: discriminator}
  optimizers = {GENERATOR: generator_optimizer, DISCRIMINATOR: discriminator_optimizer}
  game = _Game({name: computing_in(compute.precision, network) for name, network in networks.items()}, latent_dim)

  def init(key: Array, batch: Batch) -> State:
    inputs = {GENERATOR: jnp.zeros((1, latent_dim)), DISCRIMINATOR: preprocess(batch)['inputs']}
    collections = {}
    for player, network in networks.items():
      for name, tree in network.init(random.stream(key, player), inputs[player], train=False).items():
        collections.setdefault(name, {})[player] = tree
    average, params = first_average(collections, ema_decay), collections.pop('params')
    mutable = {**collections, **first_loss_scale(compute.precision)}
    return restarted(State(jnp.zeros((), jnp.int32), params, mutable, ema=average))

  def restarted(state: State) -> State:
    opt_state = {player: optimizers[player].init(nn.unbox(params)) for player, params in state.params.items()}
    return state.replace(opt_state=opt_state)

  def update(player: str, state: State, batch: Batch, key: Array) -> tuple[State, Metrics]:
    every = variables(state, state.params)

    def loss(params: PyTree, own: State, batch: Batch, key: Array, number: int | Array) -> tuple[Mean, Metrics, PyTree]:
      noise = random.per_device(random.stream(key, 'dropout', number), compute.axis_name)
      value, metrics, changed = game.loss(player, _put(every, player, variables(own, params)), batch, key, noise)
      return value, metrics, variables_of(changed, player)

    own, totals = descend(_own(state, player), batch, key, loss, optimizers[player], compute, ema_decay)
    metrics = {f'{player}_{name}' if name.endswith('norm') else name: mean for name, mean in totals.metrics.items()}
    return _with(state, player, own), {f'{player}_loss': totals.loss, **metrics}

  def train_step(state: State, batch: Batch, key: Array) -> tuple[State, Metrics]:
    batch = preprocess(without_masked_inputs(batch))
    for turn in range(critic_steps):
      state, critic = update(DISCRIMINATOR, state, batch, random.stream(key, DISCRIMINATOR, turn))
    state, metrics = update(GENERATOR, state, batch, random.stream(key, GENERATOR))
    return state.replace(step=state.step + 1), {**critic, **metrics}

  def eval_step(state: State, batch: Batch, key: Array) -> Metrics:
    batch, found = preprocess(batch), {}
    for player in (DISCRIMINATOR, GENERATOR):
      value, metrics, _ = game.loss(player, evaluation_variables(state), batch, random.stream(key, player))
      found |= {f'{player}_loss': value, **metrics}
    return found

  return Task(init, train_step, eval_step, partial(expected_by, discriminator, None, preprocess), restarted)


@dataclass(frozen=True)
class _Game:
  """The players' losses; the key `noise` is for dropout in training and absent in evaluation.

  `collections` hold both players' variables and are returned updated by the forward passes.
  """

  networks: Mapping[str, Model]
  latent_dim: int

  def loss(
    self, player: str, collections: PyTree, batch: Batch, key: Array, noise: Array | None = None
  ) -> tuple[Mean, Metrics, PyTree]:
    loss = {GENERATOR: self.generator_loss, DISCRIMINATOR: self.discriminator_loss}[player]
    return loss(collections, batch, key, noise)

  def generator_loss(
    self, collections: PyTree, batch: Batch, key: Array, noise: Array | None
  ) -> tuple[Mean, Metrics, PyTree]:
    fake, collections = self._generate(collections, batch, key, noise)
    logits, collections = self._judge(collections, fake, noise, 'fake')
    return mean(jax.nn.softplus(-logits), batch.get('mask')), {}, collections

  def discriminator_loss(
    self, collections: PyTree, batch: Batch, key: Array, noise: Array | None
  ) -> tuple[Mean, Metrics, PyTree]:
    real, collections = self._judge(collections, batch['inputs'], noise, 'real')
    generated, collections = self._generate(collections, batch, key, noise)
    fake, collections = self._judge(collections, generated, noise, 'fake')
    right = ((real > 0).astype(real.dtype) + (fake < 0).astype(real.dtype)) / 2
    loss = mean(jax.nn.softplus(-real) + jax.nn.softplus(fake), batch.get('mask'))
    return loss, {'accuracy': mean(right, batch.get('mask'))}, collections

  def _generate(self, collections: PyTree, batch: Batch, key: Array, noise: Array | None) -> tuple[Array, PyTree]:
    return self._forward(GENERATOR, collections, latent(key, batch['index'], self.latent_dim), noise, GENERATOR)

  def _judge(self, collections: PyTree, inputs: Array, noise: Array | None, stream: str) -> tuple[Array, PyTree]:
    logits, collections = self._forward(DISCRIMINATOR, collections, inputs, noise, stream)
    return logits.squeeze(1), collections

  def _forward(
    self, player: str, collections: PyTree, inputs: Array, noise: Array | None, stream: str
  ) -> tuple[Array, PyTree]:
    network, own = self.networks[player], variables_of(collections, player)
    if noise is None:
      return network.apply(own, inputs, train=False), collections
    rngs = {'dropout': random.stream(noise, stream)}
    outputs, changed = network.apply(own, inputs, train=True, rngs=rngs, mutable=['batch_stats'])
    return outputs, _put(collections, player, changed)


def latent(key: Array, index: Array, dim: int) -> Array:
  """Inputs of the generator: normal noise [batch, dim], drawn by example index."""
  return jax.vmap(lambda key: jax.random.normal(key, (dim,)))(random.per_example(key, index))


def variables_of(collections: PyTree, player: str) -> PyTree:
  """Linen variables of one player, from those of both (`evaluation_variables(state)` or a sampler's)."""
  return {name: players[player] for name, players in collections.items() if player in players}


def _put(collections: PyTree, player: str, own: PyTree) -> PyTree:
  """`collections` of both players with `own` in place of this player's."""
  return {**collections, **{name: {**collections[name], player: tree} for name, tree in own.items()}}


def _own(state: State, player: str) -> State:
  """The State of a task that trains only this player."""
  own, average = variables_of(state.mutable, player), variables_of(state.ema, player)
  params, opt_state = state.params[player], state.opt_state[player]
  return state.replace(params=params, mutable={**own, **loss_scale(state)}, opt_state=opt_state, ema=average)


def _with(state: State, player: str, own: State) -> State:
  """`state` updated with `own`, the State of this player."""
  params, opt_state = {**state.params, player: own.params}, {**state.opt_state, player: own.opt_state}
  mutable = {**_put(state.mutable, player, collections_of(own)), **loss_scale(own)}
  return state.replace(params=params, mutable=mutable, opt_state=opt_state, ema=_put(state.ema, player, own.ema))
