"""Which operation first makes a number that is not finite, and a trace of some steps."""

import dataclasses
import re

import jax
import jax.numpy as jnp
import pytest
from flax import linen as nn
from runs import drain, make

from research.errors import ConfigError
from research.train.debug import first_not_finite
from research.train.loop import train


class Cell(nn.Module):
  """Adds the reciprocal of its input."""

  @nn.compact
  def __call__(self, carry, inputs):
    return carry + 1 / inputs, carry


class Network(nn.Module):
  """Reads a sequence [length, 1], and takes a root."""

  @nn.compact
  def __call__(self, inputs):
    total, _ = nn.scan(Cell, variable_broadcast='params', split_rngs={'params': False})(name='cell')(0.0, inputs)
    return jnp.sqrt(nn.Dense(1, use_bias=False, kernel_init=nn.initializers.ones, name='head')(total[None]))


def forward(inputs):
  return Network().apply({'params': {'head': {'kernel': jnp.ones((1, 1))}}}, inputs).sum()


def deep(inputs):
  large = {'kernel': jnp.full((1, 1), 1e30)}
  model = nn.Sequential([nn.Dense(1, use_bias=False), nn.Dense(1, use_bias=False)])
  return model.apply({'params': {'layers_0': large, 'layers_1': large}}, inputs).sum()


@pytest.mark.parametrize(
  ('function', 'inputs', 'place'),
  [
    (forward, [1.0, 0.0], r'div in Network/cell \(Cell.__call__, .*test_debug.py:\d+\)'),
    (jax.jit(forward), [-1.0, -1.0], r'sqrt in Network \(Network.__call__, .*\)'),
    (jax.grad(forward), [1.0, -1.0], r'div in Network \(Network.__call__, .*\)'),
    (jax.grad(deep), [1e-35], r'dot_general in the gradient of Sequential/layers_0 \(deep, .*\)'),
    (lambda x: jax.lax.cond(x[0] > 0, lambda x: jnp.log(x), lambda x: x, x), [1.0, -1.0], r'log \(.*<lambda>.*\)'),
    (lambda x: jnp.where(x > 0, jnp.log(x), 0.0) - jnp.inf * jnp.arange(2.0), [0.0, 1.0], r'mul \(.*\)'),
    (lambda x: jax.lax.reduce(x, 1.0, lambda a, b: a * b + a * 0, (0,)), [1e30, 1e30], r'reduce \(.*\)'),
    (lambda x: jnp.where(x > 0, jnp.log(x), 0.0), [-1.0, 1.0], ''),  # what is masked is no fault
    (lambda x: jnp.exp(x), [jnp.inf, 0.0], ''),  # nor what was given
  ],
)
def test_the_first_operation_that_makes_it_is_named(function, inputs, place):
  assert re.fullmatch(place, first_not_finite(function, jnp.array(inputs)))


def test_a_run_in_search_of_a_fault_takes_the_same_steps(tmp_path):
  config = make('classifier', steps=3, log_every=1, eval_every=0)
  plain = drain(dataclasses.replace(config))
  with jax.debug_nans(True):
    checked = drain(dataclasses.replace(config))
  assert checked[-1].metrics == pytest.approx(plain[-1].metrics, rel=1e-5)


def test_the_steps_of_a_profile_are_traced(tmp_path):
  config = make('classifier', steps=4, eval_every=0)
  list(train(config, tmp_path, profile=(2, 2)))
  (trace,) = (tmp_path / 'profile').rglob('*.xplane.pb')
  lines = [line for plane in jax.profiler.ProfileData.from_file(str(trace)).planes for line in plane.lines]
  steps = [dict(event.stats)['step_num'] for line in lines for event in line.events if event.name == 'train']
  assert steps == [2, 3]


@pytest.mark.parametrize(
  ('profile', 'workdir', 'told'), [((3, 2), 'run', 'profile=3:2: the run has the steps 1 to 3'), ((1, 1), '', 'none')]
)
def test_a_profile_that_cannot_be_is_refused(profile, workdir, told, tmp_path):
  with pytest.raises(ConfigError, match=told):
    list(train(make('classifier', steps=3), workdir and tmp_path / workdir, profile=profile))
  assert not list(tmp_path.iterdir())
