"""A tabular actor-critic that learns to walk to the end of a row of cells; for tests."""

import dataclasses
from collections.abc import Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from research import metrics as means
from research import random
from research.data.examples import Arrays
from research.data.source import Source
from research.metrics import Mean, Metrics, mean
from research.parallel.mesh import MeshShape
from research.tasks.base import State, Task
from research.tasks.descend import descend
from research.train.config import Config as Base
from research.train.experiment import Experiment
from research.train.optimizer import Optimizer, make_optimizer
from research.types import Batch, PyTree

CELLS, STEPS, DISCOUNT = 6, 8, 0.9


class Trajectory(NamedTuple):
  """Trajectories of all environments: arrays [steps, batch]."""

  cell: Array
  action: Array
  reward: Array
  after: Array  # the cell after the action, before a new episode begins


def act(cell: Array, action: Array) -> tuple[Array, Array, Array]:
  """One step of all environments: the cell reached, a reward of 1 in the last one, and the next cell."""
  after = jnp.clip(cell + 2 * action - 1, 0, CELLS - 1)
  reward = (after == CELLS - 1).astype(jnp.float32)
  return after, reward, jnp.where(reward > 0, 0, after)


def roll_out(params: PyTree, cell: Array, keys: Array) -> tuple[Trajectory, Array]:
  """Rolls out STEPS steps from `cell` [batch], with a key per environment; also returns the final cells."""

  def step(cell: Array, number: Array) -> tuple[Array, Trajectory]:
    draws = jax.vmap(lambda key: jax.random.uniform(jax.random.fold_in(key, number), dtype=jnp.float32))(keys)
    action = (draws < jax.nn.sigmoid(params['actor'])[cell]).astype(jnp.int32)
    after, reward, start = act(cell, action)
    return start, Trajectory(cell, action, reward, after)

  cell, trajectory = jax.lax.scan(step, cell, jnp.arange(STEPS))
  return trajectory, cell


def actor_critic(params: PyTree, seen: Trajectory) -> tuple[Mean, Metrics]:
  """Both losses per environment, with the one-step advantage."""
  follows = jnp.where(seen.reward > 0, 0, params['critic'][seen.after])
  target = jax.lax.stop_gradient(seen.reward + DISCOUNT * follows)
  advantage = target - params['critic'][seen.cell]
  logit = params['actor'][seen.cell] * (2 * seen.action - 1)
  loss = jnp.square(advantage) - jax.nn.log_sigmoid(logit) * jax.lax.stop_gradient(advantage)
  return mean(loss.sum(0)), {'reward': mean(seen.reward.mean(0))}


def walker(config: Base) -> Task:
  """A task without examples: a batch has the index of each environment, whose cell is in `State.memory`."""
  optimizer = make_optimizer(config.optimizer, config.steps)

  def init(key: Array, batch: Batch) -> State:
    params = {'actor': jnp.zeros(CELLS), 'critic': jnp.zeros(CELLS)}
    return State(jnp.zeros((), jnp.int32), params, {}, {'cell': batch['index'] % CELLS}, optimizer.init(params))

  def loss(params: PyTree, state: State, batch: Batch, key: Array, number: int) -> tuple[Mean, Metrics, PyTree]:
    seen, cell = roll_out(params, state.memory['cell'], random.per_example(key, batch['index']))
    return *actor_critic(params, seen), {'cell': cell}

  def train_step(state: State, batch: Batch, key: Array) -> tuple[State, Metrics]:
    state, totals = descend(state, batch, key, loss, optimizer, config.compute)
    return state.replace(step=state.step + 1), {'loss': totals.loss, **totals.metrics}

  def eval_step(state: State, batch: Batch, key: Array) -> Metrics:
    start = jnp.zeros_like(batch['index'])
    seen, _ = roll_out(state.params, start, random.per_example(key, batch['index']))
    value, metrics = actor_critic(state.params, seen)
    return {'loss': value, **metrics}

  return Task(init, train_step, eval_step)


@dataclasses.dataclass
class Config(Base):
  """`batch_size` environments."""

  def build(self) -> Experiment:
    task = walker(self)
    eval_step, batch = jax.jit(task.eval_step), {'index': np.arange(self.eval_batch_size, dtype=np.int32)}

    def evaluate(state: State, key: Array) -> Iterator[tuple[str, float]]:
      yield from means.compute(jax.device_get(eval_step(state, batch, key))).items()

    parts = {'validation': evaluate}
    return Experiment(
      task=task,
      train=Source(Arrays({}), self.batch_size, self.seed),
      evaluators=parts,
      final_evaluators=parts,
      score=lambda metrics: metrics['validation/reward'],
    )


def get_config(scale: str = '') -> Config:
  return Config(
    steps=40,
    batch_size=32,
    optimizer=Optimizer('adam', lr=0.1),
    log_every=7,
    eval_every=10,
    eval_batch_size=64,
    checkpoint_every=5,
    mesh=MeshShape(1),
  )
