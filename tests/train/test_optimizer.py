"""Every rule, schedule and penalty against the formula, in float64."""

from importlib import import_module

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from research.errors import ConfigError
from research.train import optimizer as optimizers
from research.train.optimizer import RULES, SCHEDULES, Optimizer, cut_short, make_optimizer, make_schedule, phases

STEPS = 5
RNG = np.random.default_rng(0)
PARAMS = {'dense_0': {'kernel': RNG.normal(size=(3, 2)), 'bias': RNG.normal(size=2)}, 'scale': RNG.normal(size=2)}
GRADIENTS = [jax.tree.map(lambda leaf: RNG.normal(size=leaf.shape), PARAMS) for _ in range(STEPS)]


@pytest.fixture(autouse=True)
def _float64():
  with jax.enable_x64(True):
    yield


def follow(config, params=PARAMS, gradients=GRADIENTS, steps=STEPS):
  """Parameters after the updates for `gradients`, and the optimizer's state."""
  optimizer = make_optimizer(config, steps)
  state = optimizer.init(params)
  for gradient in gradients:
    updates, state = optimizer.update(gradient, state, params)
    params = optax.apply_updates(params, updates)
  return params, state


def textbook(name, w, gradients, lr=0.1, momentum=0.8, rho=0.7, b1=0.8, b2=0.95, eps=1e-3, decay=0.0):
  """The rules as their authors write them down."""
  m, v = np.zeros_like(w), np.zeros_like(w)
  for t, g in enumerate(gradients, 1):
    match name:
      case 'sgd':
        change = g
      case 'momentum':
        m = momentum * m + g
        change = m
      case 'nesterov':
        m = momentum * m + g
        change = g + momentum * m
      case 'adagrad':
        v = v + g**2
        change = g / np.sqrt(v + eps)
      case 'rmsprop':
        v = rho * v + (1 - rho) * g**2
        change = g / (np.sqrt(v) + eps)
      case 'adam' | 'adamw':
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g**2
        change = m / (1 - b1**t) / (np.sqrt(v / (1 - b2**t)) + eps)
    w = w - lr * change - lr * decay * w
  return w


@pytest.mark.parametrize('decay', [0.0, 0.3])
@pytest.mark.parametrize('name', RULES)
def test_rule_is_the_textbooks(name, decay):
  config = Optimizer(name, 0.1, momentum=0.8, rho=0.7, b1=0.8, b2=0.95, eps=1e-3, weight_decay=decay)
  params, _ = follow(config)
  kernels = [gradient['dense_0']['kernel'] for gradient in GRADIENTS]
  biases = [gradient['dense_0']['bias'] for gradient in GRADIENTS]
  kernel = textbook(name, PARAMS['dense_0']['kernel'], kernels, decay=decay)
  bias = textbook(name, PARAMS['dense_0']['bias'], biases)  # no decay
  np.testing.assert_allclose(params['dense_0']['kernel'], kernel, rtol=1e-12)
  np.testing.assert_allclose(params['dense_0']['bias'], bias, rtol=1e-12)


def test_any_name_of_optax():
  assert {'lion', 'adan', 'lamb', 'radam', 'rprop', 'sm3'} <= set(optimizers._optax_rules())
  for name in ('lion', 'adan', 'lamb', 'yogi'):
    rule = getattr(optax, name)(0.1, **({} if name == 'yogi' else {'weight_decay': 0.0}))
    state, params = rule.init(PARAMS), PARAMS
    for gradient in GRADIENTS:
      updates, state = rule.update(gradient, state, params)
      params = optax.apply_updates(params, updates)
    jax.tree.map(np.testing.assert_array_equal, follow(Optimizer(name, 0.1))[0], params)


@pytest.mark.filterwarnings('ignore:Specifying a key:UserWarning')
def test_every_name_of_optax_can_be_used():
  for name in optimizers._optax_rules():
    params, _ = follow(Optimizer(name, 0.1, weight_decay=0.1), gradients=GRADIENTS[:1])
    assert np.isfinite(params['dense_0']['kernel']).all(), name
    assert not np.array_equal(params['dense_0']['kernel'], PARAMS['dense_0']['kernel']), name


def test_decay_of_lion_is_the_configs_and_leaves_biases_alone():
  plain, decayed = follow(Optimizer('lion', 0.1))[0], follow(Optimizer('lion', 0.1, weight_decay=0.3))[0]
  np.testing.assert_array_equal(plain['dense_0']['bias'], decayed['dense_0']['bias'])
  w = PARAMS['dense_0']['kernel']
  one, other = (follow(Optimizer('lion', 0.1, weight_decay=d), gradients=GRADIENTS[:1])[0] for d in (0.3, 0))
  np.testing.assert_allclose(one['dense_0']['kernel'], other['dense_0']['kernel'] - 0.1 * 0.3 * w, rtol=1e-12)


def test_decoupled_decay_follows_the_schedule():
  zeros = [jax.tree.map(np.zeros_like, PARAMS)] * STEPS
  params, _ = follow(Optimizer('adamw', 0.5, 'linear', weight_decay=0.2), gradients=zeros)
  factor = np.prod([1 - 0.5 * (1 - t / STEPS) * 0.2 for t in range(STEPS)])
  np.testing.assert_allclose(params['dense_0']['kernel'], factor * PARAMS['dense_0']['kernel'], rtol=1e-12)


def test_penalties_are_gradients_of_weights_alone():
  w, g = PARAMS['dense_0']['kernel'].copy(), GRADIENTS[0]['dense_0']['kernel']
  w[0, 0] = 0  # where the penalty has no slope
  given = {**PARAMS, 'dense_0': {**PARAMS['dense_0'], 'kernel': w}}
  params, _ = follow(Optimizer('sgd', 0.1, l1=0.3, l2=0.2), given, GRADIENTS[:1])
  penalty = 0.3 * np.sign(w) + 0.2 * w  # the gradients of .3 |w| and .1 w^2
  np.testing.assert_allclose(params['dense_0']['kernel'], w - 0.1 * (g + penalty), rtol=1e-12)
  for name in ('scale', 'dense_0'):
    old, gradient, new = PARAMS[name], GRADIENTS[0][name], params[name]
    old, gradient, new = (x if name == 'scale' else x['bias'] for x in (old, gradient, new))
    np.testing.assert_allclose(new, old - 0.1 * gradient, rtol=1e-12)


def test_biases_scales_and_vectors_are_left_alone():
  params = {
    'layer': {'query': {'kernel': np.ones((2, 2, 2)), 'bias': np.ones((2, 2))}},
    'norm': {'scale': np.ones((2, 2))},
    'slopes': np.ones(3),
  }
  mask = optimizers.decay_mask(params)
  layer = {'query': {'kernel': True, 'bias': False}}
  assert mask == {'layer': layer, 'norm': {'scale': False}, 'slopes': False}


def test_clipping_by_value_then_norm_before_penalties():
  config = Optimizer('sgd', 1.0, clip_value=0.5, clip_norm=0.7, l2=0.1)
  params, _ = follow(config, gradients=GRADIENTS[:1])
  cut = jax.tree.map(lambda g: np.clip(g, -0.5, 0.5), GRADIENTS[0])
  norm = np.sqrt(sum((g**2).sum() for g in jax.tree.leaves(cut)))
  assert norm > 0.7
  w, g = PARAMS['dense_0']['kernel'], cut['dense_0']['kernel'] * 0.7 / norm
  np.testing.assert_allclose(params['dense_0']['kernel'], w - (g + 0.1 * w), rtol=1e-12)


def test_frozen_parameters_keep_their_bits_and_have_no_state():
  config = Optimizer('adamw', 0.1, weight_decay=0.1, l1=0.1, clip_norm=1e-3, freeze=('dense_*/kernel',))
  params, state = follow(config)
  np.testing.assert_array_equal(params['dense_0']['kernel'], PARAMS['dense_0']['kernel'])
  assert not np.array_equal(params['dense_0']['bias'], PARAMS['dense_0']['bias'])
  assert (3, 2) not in {leaf.shape for leaf in jax.tree.leaves(state)}


def test_norm_for_clipping_is_that_of_the_parameters_that_move():
  config = Optimizer('sgd', 1.0, clip_norm=0.1, freeze=('dense_0/*',))
  params, _ = follow(config, gradients=GRADIENTS[:1])
  np.testing.assert_allclose(np.linalg.norm(params['scale'] - PARAMS['scale']), 0.1, rtol=1e-12)


FORMULAS = {
  'constant': lambda t: 1.0,
  'step': lambda t: 0.3 ** ((t >= 10) + (t >= 15)),
  'linear': lambda t: 1 - 0.9 * min(max(t - 4, 0) / 16, 1),
  'cosine': lambda t: 0.1 + 0.9 * (1 + np.cos(np.pi * min(max(t - 4, 0) / 16, 1))) / 2,
  'inverse_sqrt': lambda t: np.sqrt(4 / max(t + 1, 4)),
  'wsd': lambda t: 1 - 0.9 * min(max(t - 12, 0) / 8, 1),
}


@pytest.mark.parametrize('name', SCHEDULES)
def test_schedule_is_its_formula(name):
  config = Optimizer(
    lr=2.0,
    schedule=name,
    warmup_steps=4,
    schedule_steps=20,
    final_lr_fraction=0.1,
    milestones=(10, 15),
    decay_rate=0.3,
    decay_steps=8,
  )
  schedule = jax.jit(make_schedule(config, 1_000))
  for t in range(25):
    np.testing.assert_allclose(schedule(jnp.int32(t)), 2 * min((t + 1) / 4, 1) * FORMULAS[name](t), rtol=1e-12)


def test_schedule_is_as_long_as_the_run_unless_it_says():
  assert make_schedule(Optimizer(schedule='linear', lr=1.0), 10)(5) == 0.5
  assert make_schedule(Optimizer(schedule='linear', lr=1.0, schedule_steps=20), 10)(5) == 0.75
  wsd = make_schedule(Optimizer(schedule='wsd', lr=1.0), 20)  # whose last phase is a fifth
  np.testing.assert_allclose([wsd(step) for step in (15, 16, 17, 19, 20, 25)], [1, 1, 0.75, 0.25, 0, 0])
  np.testing.assert_allclose([make_schedule(Optimizer(schedule='wsd', lr=1.0), 3)(step) for step in (2, 3)], [1, 0])
  np.testing.assert_allclose(make_schedule(Optimizer(schedule='inverse_sqrt', lr=1.0), 9)(3), 0.5)


def test_a_phase_may_fill_the_schedule():
  for config in (
    Optimizer(schedule='linear', warmup_steps=STEPS - 1, schedule_steps=STEPS),
    Optimizer(schedule='wsd', warmup_steps=2, decay_steps=STEPS - 2, schedule_steps=STEPS),
    Optimizer(warmup_steps=2 * STEPS),
    Optimizer('rprop'),
  ):
    make_optimizer(config, STEPS)


@pytest.mark.parametrize(
  ('config', 'steps', 'taken'),
  [
    (Optimizer(schedule='cosine', warmup_steps=100), 50, (24, 2)),
    (Optimizer(schedule='linear', warmup_steps=100), 1, (0, 1)),
    (Optimizer(schedule='wsd', warmup_steps=100, decay_steps=300), 40, (5, 15)),
    (Optimizer(schedule='wsd', decay_steps=300), 40, (0, 20)),
    (Optimizer(schedule='cosine', warmup_steps=49), 50, None),
    (Optimizer(schedule='constant', warmup_steps=100), 50, None),
    (Optimizer(schedule='wsd', warmup_steps=40), 50, None),
  ],
)
def test_phases_are_shortened_in_a_run_that_is_too_short_for_them(config, steps, taken):
  _, warmup_steps, decay = phases(config, steps)
  note = cut_short(config, steps)
  if taken is None:
    assert warmup_steps == config.warmup_steps and 'too few' not in note
  else:
    assert (
      (warmup_steps, decay) == taken
      and f'config.steps={steps}: too few' in note
      and f'warmup_steps={warmup_steps}' in note
    )
  rates = [float(make_schedule(config, steps)(step)) for step in range(steps)]
  assert np.isfinite(rates).all() and max(rates) > 0
  if config.schedule != 'constant':
    assert max(rates) == pytest.approx(config.lr, rel=0.1)


def test_a_first_look_of_a_few_steps_is_told_of_its_schedule(fault):
  config = import_module('experiments.cnn_digits.config').get_config()
  config.steps = 50
  config.validate()
  fault('a run too short for its warm-up', cut_short(config.optimizer, config.steps), 0, 'everything')


@pytest.mark.parametrize(
  ('config', 'steps', 'what'),
  [
    (Optimizer(warmup_steps=5), 4, 'optimizer.warmup_steps=5'),
    (Optimizer(warmup_steps=5), 5, ''),
    (Optimizer(schedule='step', milestones=(2, 5)), 5, 'optimizer.milestones=(2, 5)'),
    (Optimizer(schedule='step', milestones=(2, 5)), 6, ''),
  ],
)
def test_a_run_that_ends_within_its_schedule_is_told(config, steps, what):
  rates = [float(make_schedule(config, steps)(step)) for step in range(steps)]
  assert (rates[-1] == float(make_schedule(config, steps)(1_000))) == (not what)
  assert cut_short(config, steps).endswith(what) and bool(cut_short(config, steps)) == bool(what)


@pytest.mark.parametrize(
  ('config', 'words'),
  [
    (Optimizer('adm'), ('optimizer.name', 'adam')),
    (Optimizer(schedule='cosin'), ('optimizer.schedule', 'cosine')),
    (Optimizer(schedule='cosine', warmup_steps=5, schedule_steps=5), ('optimizer.warmup_steps=5', 'schedule_steps=5')),
    (
      Optimizer(schedule='wsd', warmup_steps=2, decay_steps=4, schedule_steps=5),
      ('optimizer.decay_steps=4', 'warmup_steps=2'),
    ),
    (Optimizer('rprop', schedule='cosine'), ('rprop', 'constant')),
    (Optimizer('rprop', warmup_steps=1), ('rprop', 'constant')),
    (
      Optimizer(schedule='wsd', warmup_steps=STEPS, schedule_steps=STEPS),
      ('optimizer.warmup_steps=5', 'schedule_steps=5'),
    ),
    (Optimizer(schedule='step'), ('optimizer.milestones', 'step')),
    (Optimizer(lr=float('nan')), ('optimizer.lr=nan', 'at least 0 and finite')),
    (Optimizer(warmup_steps=-1), ('optimizer.warmup_steps=-1', 'at least 0')),
    (Optimizer(b2=1.0), ('optimizer.b2=1.0', 'less than 1')),
    (Optimizer(freeze=('dense_1/kernel',)), ('config.optimizer.freeze', 'dense_1/kernel', 'dense_0/kernel')),
    (Optimizer(freeze=('zzz',)), ("'zzz' matches no parameter; nearest: dense_0/bias, dense_0/kernel, scale",)),
  ],
)
def test_mistakes_are_told_in_one_line(config, words):
  with pytest.raises(ConfigError) as error:
    make_optimizer(config, STEPS).init(PARAMS)
  assert all(word in str(error.value) for word in words) and '\n' not in str(error.value)
