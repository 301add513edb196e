"""Optimizers: a dataclass of settings, and the schedule and Optax transformation built from it."""

import dataclasses
import fnmatch
import inspect
import math

import jax
import jax.numpy as jnp
import optax

from research.errors import ConfigError, alike, check_range, unknown

RULES = ('sgd', 'momentum', 'nesterov', 'adagrad', 'rmsprop', 'adam', 'adamw')
SCHEDULES = ('constant', 'step', 'linear', 'cosine', 'inverse_sqrt', 'wsd')
PHASED = ('linear', 'cosine', 'wsd')  # schedules that end, by default with the run
SHARES = ('momentum', 'rho', 'b1', 'b2')  # fields that must be less than 1


@dataclasses.dataclass
class Optimizer:
  """An update rule, its learning rate schedule, clipping and regularization."""

  name: str = 'adam'  # sgd, momentum, nesterov, adagrad, rmsprop, adam, adamw or any in Optax, such as lion
  lr: float = 1e-3  # peak learning rate
  schedule: str = 'constant'  # constant, step, linear, cosine, inverse_sqrt or wsd (warm-up, stable, decay)
  warmup_steps: int = 0  # steps of linear warm-up to lr, with any schedule
  schedule_steps: int = 0  # length of the schedule in steps; 0 = the run's steps
  final_lr_fraction: float = 0.0  # final learning rate of linear, cosine and wsd, as a fraction of lr
  milestones: tuple[int, ...] = ()  # step: steps at which the learning rate drops
  decay_rate: float = 0.1  # step: the factor at each milestone
  decay_steps: int = 0  # wsd: steps of the decay phase; 0 = a fifth of the schedule
  momentum: float = 0.9  # momentum, nesterov: decay of the velocity
  rho: float = 0.9  # rmsprop: decay of the average of squared gradients
  b1: float = 0.9  # adam, adamw: decay of the average of gradients
  b2: float = 0.999  # adam, adamw: decay of the average of squared gradients
  eps: float = 1e-8  # rmsprop, adam, adamw: added to the root of the squared gradients; adagrad: under the root
  clip_value: float = 0.0  # clips each entry of the gradient to +- this; 0 = off
  clip_norm: float = 0.0  # clips the global norm of the gradient; 0 = off
  l1: float = 0.0  # penalty l1 * sum |w| in the gradient, except for biases and norms
  l2: float = 0.0  # penalty l2 / 2 * sum w^2 in the gradient (coupled), except for biases and norms
  weight_decay: float = 0.0  # w -= learning rate * weight_decay * w (decoupled, as in adamw), likewise
  freeze: tuple[str, ...] = ()  # frozen parameters, by path: 'encoder/*', 'block_0/*'


def make_schedule(config: Optimizer, steps: int) -> optax.Schedule:
  """Learning rate as a function of the number of updates done; `steps` is the length of the run.

  Warm-up multiplies the schedule by min(1, (step + 1) / warmup_steps), so that no step has a rate of 0.
  'linear' and 'cosine' (Loshchilov & Hutter 2017) start to decay after the warm-up; 'inverse_sqrt' is
  sqrt(warmup_steps / (step + 1)) after it (Vaswani et al. 2017, section 5.3); 'wsd' is that of Hu et al. 2024
  with a linear decay. Raises ConfigError for an unknown name, 'step' without milestones, or phases longer than
  `schedule_steps`; if the run itself is too short, they are shortened, see `phases`.
  """
  length, warmup_steps, decay_steps = phases(config, steps)
  if config.schedule not in SCHEDULES:
    raise ConfigError(f'optimizer.schedule={config.schedule!r}: {unknown(config.schedule, SCHEDULES)}')
  if config.schedule == 'step' and not config.milestones:
    raise ConfigError('optimizer.milestones: must have at least one entry for schedule step')
  if config.schedule in PHASED and warmup_steps >= length:
    raise ConfigError(f'optimizer.warmup_steps={warmup_steps}: leaves nothing of schedule_steps={length}')
  if config.schedule == 'wsd' and warmup_steps + decay_steps > length:
    raise ConfigError(
      f'optimizer.decay_steps={decay_steps}: with warmup_steps={warmup_steps} exceeds schedule_steps={length}'
    )

  def fraction(step):
    done = jnp.clip((step - warmup_steps) / max(length - warmup_steps, 1), 0, 1)
    match config.schedule:
      case 'constant':
        return 1.0
      case 'step':
        return config.decay_rate ** jnp.sum(step >= jnp.asarray(config.milestones, float))
      case 'linear':
        return 1 - (1 - config.final_lr_fraction) * done
      case 'cosine':
        return config.final_lr_fraction + (1 - config.final_lr_fraction) * (1 + jnp.cos(math.pi * done)) / 2
      case 'inverse_sqrt':
        return jnp.sqrt(max(warmup_steps, 1) / jnp.maximum(step + 1, max(warmup_steps, 1)))
      case 'wsd':
        return 1 - (1 - config.final_lr_fraction) * jnp.clip((step - length + decay_steps) / decay_steps, 0, 1)

  def schedule(step):
    step = jnp.asarray(step, float)
    return config.lr * jnp.minimum((step + 1) / max(warmup_steps, 1), 1) * fraction(step)

  return schedule


def phases(config: Optimizer, steps: int) -> tuple[int, int, int]:
  """Steps of the schedule, of its warm-up and of its decay phase ('wsd').

  A short run should not fail because of a long warm-up: if the schedule ends with the run and the two phases do not
  fit, they share half of it in proportion.
  """
  length = config.schedule_steps or steps
  warmup_steps, decay = config.warmup_steps, config.decay_steps or max(length // 5, 1)
  needed = warmup_steps + (decay if config.schedule == 'wsd' else 1)
  if config.schedule in PHASED and not config.schedule_steps and needed > length:
    warmup_steps, decay = (
      max(phase * length // (2 * needed), least) for phase, least in ((warmup_steps, 0), (decay, 1))
    )
  return length, warmup_steps, decay


def cut_short(config: Optimizer, steps: int) -> str:
  """A line that says which parts of its schedule a run is too short for; '' for none."""
  if config.warmup_steps > steps and config.schedule not in PHASED:
    return f'config.steps={steps}: the run ends within optimizer.warmup_steps={config.warmup_steps}'
  if config.schedule == 'step' and max(config.milestones) >= steps:
    return f'config.steps={steps}: the run ends before the last of optimizer.milestones={config.milestones}'
  _, warmup_steps, decay = phases(config, steps)
  if (warmup_steps, decay) == (config.warmup_steps, config.decay_steps or decay):
    return ''
  asked, taken = f'warmup_steps={config.warmup_steps}', f'warmup_steps={warmup_steps}'
  if config.schedule == 'wsd':
    asked, taken = f'{asked}, decay_steps={config.decay_steps}', f'{taken}, decay_steps={decay}'
  return f'config.steps={steps}: too few for optimizer.{asked}; this run has {taken}'


def make_optimizer(config: Optimizer, steps: int) -> optax.GradientTransformation:
  """Clipping by value, by norm, then L1 and L2, the rule, and decoupled decay times the learning rate.

  The norm is over parameters that are not frozen; frozen ones have no optimizer state. An Optax rule uses its
  own defaults, except that a maskable decay is the config's `weight_decay`.
  Decoupled decay: Loshchilov & Hutter 2019. Raises ConfigError for an unknown name, a value out of range, and at
  init for a pattern in `freeze` that matches no parameter.
  """
  for field in dataclasses.fields(config):
    if field.type in (int, float):
      value, below = getattr(config, field.name), 1 if field.name in SHARES else math.inf
      check_range(f'optimizer.{field.name}', value, below)
  schedule = make_schedule(config, steps)
  parts = []
  if config.clip_value:
    parts.append(optax.clip(config.clip_value))
  if config.clip_norm:
    parts.append(optax.clip_by_global_norm(config.clip_norm))
  if config.l1:
    parts.append(_add_l1(config.l1))
  if config.l2:
    parts.append(optax.add_decayed_weights(config.l2, decay_mask))
  optimizer = optax.chain(*parts, *_rule(config, schedule))
  if not config.freeze:
    return optimizer
  rules = {'train': optimizer, 'freeze': optax.set_to_zero()}
  return optax.partition(rules, lambda params: _labels(params, config.freeze))


def decay_mask(params):
  """True for weights, False for biases and norm scales: by name, and for any parameter of rank below 2."""

  def decays(path, leaf):
    return jnp.ndim(leaf) >= 2 and _name(path).split('/')[-1] not in ('bias', 'scale')

  return jax.tree_util.tree_map_with_path(decays, params)


def _rule(config: Optimizer, schedule: optax.Schedule) -> list[optax.GradientTransformation]:
  """The rule, and weight decay unless it is part of the rule."""
  decay = [_decoupled_decay(config.weight_decay, schedule)] if config.weight_decay else []
  match config.name:
    case 'sgd':
      return [optax.sgd(schedule), *decay]
    case 'momentum' | 'nesterov':
      return [optax.sgd(schedule, config.momentum, nesterov=config.name == 'nesterov'), *decay]
    case 'adagrad':
      return [optax.adagrad(schedule, initial_accumulator_value=0, eps=config.eps), *decay]
    case 'rmsprop':
      return [optax.rmsprop(schedule, config.rho, config.eps, eps_in_sqrt=False), *decay]
    case 'adam' | 'adamw':
      return [optax.adam(schedule, config.b1, config.b2, config.eps), *decay]
  return _optax_rule(config, schedule, decay)


def _optax_rule(config: Optimizer, schedule: optax.Schedule, decay: list) -> list:
  rules = _optax_rules()
  if config.name not in rules:
    raise ConfigError(f'optimizer.name={config.name!r}: {unknown(config.name, (*RULES, *rules))}')
  if config.name in ('rprop', 'sm3'):  # they take a number
    if config.schedule != 'constant' or config.warmup_steps:
      raise ConfigError(f'optimizer.schedule: {config.name} has a constant learning rate without warm-up')
    return [rules[config.name](config.lr), *decay]
  arguments = inspect.signature(rules[config.name]).parameters
  mask = next((name for name in ('mask', 'weight_decay_mask') if name in arguments), '')
  if mask and 'weight_decay' in arguments:
    return [rules[config.name](schedule, weight_decay=config.weight_decay, **{mask: decay_mask})]
  return [rules[config.name](schedule), *decay]


def _optax_rules() -> dict:
  """Optax optimizers by name: those whose first argument is a learning rate."""
  functions = inspect.getmembers(optax, inspect.isfunction)
  return {
    name: function
    for name, function in functions
    if next(iter(inspect.signature(function).parameters), '') == 'learning_rate'
    and not name.startswith(('_', 'scale_by_'))
    and name not in ('lbfgs', 'optimistic_adam')  # one also needs the loss, the other is deprecated
  }


def _add_l1(strength: float) -> optax.GradientTransformation:
  def update(updates, params):
    return jax.tree.map(lambda u, p: u + strength * jnp.sign(p), updates, params)

  return optax.masked(optax.stateless(update), decay_mask)


def _decoupled_decay(strength: float, schedule: optax.Schedule) -> optax.GradientTransformation:
  def update(updates, count, params):
    rate = strength * schedule(count)
    return jax.tree.map(lambda u, p: u - (rate * p).astype(u.dtype), updates, params), count + 1

  decay = optax.GradientTransformation(lambda params: jnp.zeros((), jnp.int32), update)
  return optax.masked(decay, decay_mask)


def _labels(params, patterns: tuple[str, ...]):
  paths = [_name(path) for path, _ in jax.tree_util.tree_leaves_with_path(params)]
  for pattern in patterns:
    if not fnmatch.filter(paths, pattern):
      nearest = alike(pattern, paths) or paths[:3]
      raise ConfigError(f'config.optimizer.freeze: {pattern!r} matches no parameter; nearest: {", ".join(nearest)}')

  def label(path, _):
    frozen = any(fnmatch.fnmatchcase(_name(path), pattern) for pattern in patterns)
    return 'freeze' if frozen else 'train'

  return jax.tree_util.tree_map_with_path(label, params)


def _name(path) -> str:
  return jax.tree_util.keystr(path, simple=True, separator='/')
