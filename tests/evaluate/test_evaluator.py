"""Every example counts exactly once, whatever the batch size, the padding and the number of devices."""

import weakref

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn

from research import random
from research.data.examples import Arrays
from research.errors import DataError, NotFiniteError
from research.evaluate import exact
from research.evaluate.evaluator import AHEAD, Evaluator, make_eval_step, padded_rows
from research.evaluate.reports import Highest, Streamed, Summed
from research.metrics import mean
from research.objectives.classification import softmax_cross_entropy
from research.objectives.regression import mean_squared_error
from research.parallel import placement
from research.parallel.mesh import MeshShape, make_mesh, replicated
from research.tasks.base import Task
from research.tasks.network import Network, predictor
from research.tasks.supervised import supervised

KEY = jax.random.key(0)
NUMBERS = np.random.default_rng(0)
EXAMPLES = Arrays(
  {
    'inputs': NUMBERS.normal(size=(37, 5)).astype(np.float32),
    'targets': NUMBERS.integers(0, 3, 37).astype(np.int32),
  }
)


class Linear(nn.Module):
  @nn.compact
  def __call__(self, inputs, train=False):
    return nn.Dense(3, name='dense')(inputs)


TASK = supervised(Linear(), softmax_cross_entropy(), optax.sgd(0.1), ema_decay=0.5)
EVAL_STEP = make_eval_step(TASK, predictor(Network(Linear())))


@pytest.fixture(scope='module')
def state():
  """After a few steps, so that averaged parameters differ from the newest."""
  state = TASK.init(KEY, EXAMPLES.arrays)
  for _ in range(4):
    state, _ = TASK.train_step(state, {**EXAMPLES.arrays, 'index': np.arange(37)}, KEY)
  return state


def logits_of(params) -> np.ndarray:
  kernel, bias = (np.array(params['dense'][name], np.float64) for name in ('kernel', 'bias'))
  return EXAMPLES.arrays['inputs'] @ kernel + bias


@pytest.mark.parametrize('devices', [0, 1, 8])
@pytest.mark.parametrize('batch_size', [1, 5, 36, 37, 38, 100])
def test_means_and_outputs_are_those_of_all_examples(batch_size, devices, state):
  placed = jax.device_put(state, replicated(make_mesh(MeshShape(devices), 8))) if devices else state
  logits, targets = logits_of(state.ema['params']), EXAMPLES.arrays['targets']
  evaluator = Evaluator(EVAL_STEP, EXAMPLES, batch_size, (exact.multiclass,))
  metrics, outputs = evaluator.collect(placed, KEY)
  np.testing.assert_allclose(outputs, logits, rtol=1e-4, atol=1e-5)
  assert metrics['loss'].count == metrics['accuracy'].count == 37

  values = dict(evaluator(placed, KEY))
  log_probabilities = logits - np.log(np.exp(logits).sum(1, keepdims=True))
  np.testing.assert_allclose(values['loss'], -log_probabilities[np.arange(37), targets].mean(), rtol=1e-5)
  np.testing.assert_allclose(values['accuracy'], (logits.argmax(1) == targets).mean(), rtol=1e-12)
  expected = dict(exact.multiclass(logits, EXAMPLES.arrays))
  assert all(isinstance(value, float) for value in values.values())
  np.testing.assert_allclose([values[name] for name in expected], list(expected.values()), rtol=1e-5)


def maker():
  def report(outputs, rows):
    yield 'half', 0.5
    raise ValueError('wrong')

  return report


def test_what_a_report_raises_is_yielded_under_its_name(state):
  found = dict(Evaluator(EVAL_STEP, EXAMPLES, 10, (maker(), exact.multiclass))(state, KEY))
  assert found['half'] == 0.5 and type(found['maker']) is ValueError

  def broken(outputs, rows):
    raise OSError

  streamed = Streamed('streamed', lambda size: Summed(broken, broken))
  failed = dict(Evaluator(EVAL_STEP, EXAMPLES, 10, (broken, streamed))(state, KEY))
  assert type(failed['broken']) is type(failed['streamed']) is OSError and 'loss' in failed
  assert dict(exact.multiclass(logits_of(state.ema['params']), EXAMPLES.arrays)).keys() < found.keys()


def test_a_number_of_any_kind_is_a_float(state):
  numbers = {'int': 3, 'numpy': np.float32(0.5), 'array': np.ones(()), 'jax': jnp.ones(()), 'bool': True}
  found = dict(
    Evaluator(EVAL_STEP, EXAMPLES, 10, (lambda outputs, rows: iter([*numbers.items(), ('text', '3')]),))(state, KEY)
  )
  assert all(type(found[name]) is float and found[name] == number for name, number in numbers.items())
  assert found['text'] == '3'


def test_averaged_parameters_are_measured_and_not_the_newest(state):
  _, outputs = Evaluator(EVAL_STEP, EXAMPLES, 10).collect(state, KEY)
  assert np.abs(outputs - logits_of(state.params)).max() > 1e-3


def test_padding_repeats_the_last_example_behind_a_mask():
  batch = padded_rows(EXAMPLES, np.arange(35, 39))
  np.testing.assert_array_equal(batch['mask'], [1, 1, 0, 0])
  np.testing.assert_array_equal(batch['inputs'], EXAMPLES.arrays['inputs'][[35, 36, 36, 36]])


@pytest.mark.parametrize('kind', ['examples', 'positions'])
def test_the_mask_of_the_data_is_kept_beside_that_of_the_padding(kind, state):
  """What does not count may hold anything, in means and in reports."""
  mask = NUMBERS.integers(0, 2, 37 if kind == 'examples' else (37, 3)).astype(bool)
  kept = mask if kind == 'examples' else mask.any(1)
  targets = np.where(mask.reshape(37, -1), NUMBERS.normal(size=(37, 3)), np.nan).astype(np.float32)
  examples = Arrays({**EXAMPLES.arrays, 'targets': targets, 'mask': mask})
  seen = {}

  def report(outputs, rows):
    seen.update(rows, outputs=outputs)
    yield 'count', float(len(outputs))

  task = supervised(Linear(), mean_squared_error(), optax.sgd(0.1), ema_decay=0.5)
  values = dict(Evaluator(make_eval_step(task, predictor(Network(Linear()))), examples, 10, (report,))(state, KEY))
  errors = (logits_of(state.ema['params']) - targets) ** 2
  np.testing.assert_allclose(values['loss'], errors[~np.isnan(targets)].mean(), rtol=1e-5)
  np.testing.assert_array_equal(seen['index'], np.flatnonzero(kept))
  np.testing.assert_allclose(seen['outputs'], logits_of(state.ema['params'])[kept], rtol=1e-4, atol=1e-5)
  np.testing.assert_array_equal(seen['targets'], targets[kept])


def test_an_evaluation_in_which_nothing_counts_or_the_data_are_nan_is_told(state):
  nothing = Arrays({**EXAMPLES.arrays, 'mask': np.zeros(37)})
  with pytest.raises(DataError, match='every example of an evaluation is masked out'):
    dict(Evaluator(EVAL_STEP, nothing, 10)(state, KEY))
  inputs = np.where(np.arange(37)[:, None] == 20, np.nan, EXAMPLES.arrays['inputs']).astype(np.float32)
  with pytest.raises(NotFiniteError, match='example 20 has non-finite inputs; fix the data'):
    dict(Evaluator(EVAL_STEP, Arrays({**EXAMPLES.arrays, 'inputs': inputs}), 10)(state, KEY))


def test_noise_does_not_depend_on_the_batch_size():
  def eval_step(state, batch, key):
    draws = jax.vmap(jax.random.normal)(random.per_example(key, batch['index']))
    return {'draw': mean(draws, batch['mask'])}

  eval_step = make_eval_step(Task(None, None, eval_step), lambda state, batch: batch['index'])
  values = [dict(Evaluator(eval_step, EXAMPLES, size)(jnp.zeros(1), KEY))['draw'] for size in (4, 37, 50)]
  np.testing.assert_allclose(values, values[0], rtol=1e-5)
  other = dict(Evaluator(eval_step, EXAMPLES, 4)(jnp.zeros(1), jax.random.key(1)))['draw']
  assert abs(other - values[0]) > 1e-3


def test_all_parts_share_one_compilation(state, caplog):
  eval_step = make_eval_step(TASK, predictor(Network(Linear())))
  other = Arrays({name: array[:11] for name, array in EXAMPLES.arrays.items()})
  with jax.log_compiles():
    for examples in (EXAMPLES, other, EXAMPLES):
      dict(Evaluator(eval_step, examples, 10)(state, KEY))
  assert len([r for r in caplog.records if r.getMessage().startswith('Compiling jit(eval_step)')]) == 1


class Made:
  """Examples that are made when they are asked for; counts how many batches of inputs are held at once."""

  def __init__(self):
    self.held, self.most = [], 0

  def __len__(self):
    return len(EXAMPLES)

  def rows(self, indices):
    rows = EXAMPLES.rows(indices)
    self.held = [ref for ref in (*self.held, weakref.ref(rows['inputs'])) if ref() is not None]
    self.most = max(self.most, len(self.held))
    return rows


@pytest.mark.parametrize('batch_size', [1, 5, 37])
def test_no_inputs_are_kept_but_those_that_a_report_keeps(batch_size, state):
  """The numbers are those of all examples at once, and the outputs are kept where a report reads them alone."""
  examples, logits = Made(), logits_of(state.ema['params'])
  wrong = logits.argmax(-1) != EXAMPLES.arrays['targets']
  scores = np.where(wrong, logits.max(-1), -np.inf)

  def surest(outputs, rows):
    yield 'surest', rows['index'].tolist()
    yield 'its_inputs', rows['inputs']

  def summed(sums):
    yield 'sum', float(sums)

  reports = (
    exact.multiclass,
    Streamed(
      'surest',
      lambda size: Highest(
        surest,
        lambda logits, rows: np.where(logits.argmax(-1) != rows['targets'], logits.max(-1), -np.inf),
        max_count=4,
      ),
    ),
    Streamed('summed', lambda size: Summed(lambda _, rows: rows['inputs'].sum(dtype=np.float64), summed)),
  )
  found = dict(Evaluator(EVAL_STEP, examples, batch_size, reports)(state, KEY))
  assert examples.most <= AHEAD + 2 or batch_size == 37
  assert found['surest'] == np.argsort(-scores, kind='stable')[:4].tolist()
  np.testing.assert_array_equal(found['its_inputs'], EXAMPLES.arrays['inputs'][found['surest']])
  np.testing.assert_allclose(found['sum'], EXAMPLES.arrays['inputs'].sum(dtype=np.float64))
  expected = dict(exact.multiclass(logits, EXAMPLES.arrays))
  np.testing.assert_allclose([found[name] for name in expected], list(expected.values()), rtol=1e-5)


def test_outputs_that_no_report_reads_stay_on_the_devices(state, monkeypatch):
  fetched = []
  monkeypatch.setattr(placement, 'fetch', lambda tree: fetched.append(tree) or jax.device_get(tree))
  dict(Evaluator(EVAL_STEP, EXAMPLES, 10)(state, KEY))
  assert [outputs for _, outputs in fetched] == [()] * 4
