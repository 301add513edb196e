"""The loop against a bare one, its order, what it compiles, and that a run stopped anywhere ends with the same bits."""

import collections
import contextlib
import dataclasses
import functools
import itertools
import json
import re
import signal

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax._src.array import ArrayImpl
from jax.flatten_util import ravel_pytree
from runs import content, drain, make, outcome, untold

from research import random
from research.data.examples import Arrays
from research.errors import ConfigError
from research.parallel.mesh import MeshShape
from research.tasks.base import State
from research.train import checkpoint, recorder
from research.train.environment import device
from research.train.loop import train
from research.train.optimizer import Optimizer
from research.train.run import Interrupted
from research.train.signals import Stop
from research.train.workdir import tree_sha256

NAMES = ('classifier', 'regularized', 'ring', 'stream', 'transcriber', 'translator', 'series', 'forecaster', 'agent')


@pytest.fixture(scope='module')
def undisturbed(tmp_path_factory):
  """Function (name) -> outcome of the config's run when it is left alone, and those of its States that were seen."""

  @functools.cache
  def get(name: str) -> tuple[tuple, dict[int, State]]:
    config, folder = make(name), tmp_path_factory.mktemp(name)
    records = train(config, folder)
    states = {int(record.state.step): jax.device_get(record.state) for record in records if record.state is not None}
    return outcome(folder), states

  return get


def bare_loop(config, steps: int) -> tuple[list, list]:
  """States (the first one too) and metrics of every step, by hand."""
  experiment, key = config.build(), jax.random.key(config.seed)
  take = jax.jit(experiment.task.train_step)
  states, metrics = [], []
  for step in range(steps):
    index = experiment.train.indices(step)
    batch = {**experiment.train.examples.rows(index), 'index': index}
    if not states:
      states.append(jax.jit(experiment.task.init)(random.stream(key, 'init'), batch))
    state, values = take(states[-1], batch, random.stream(key, 'train', step))
    states.append(state)
    metrics.append(jax.device_get(values))
  return states, metrics


# The others are supervised tasks on resident arrays, as the classifier is.
@pytest.mark.parametrize('name', ['classifier', 'regularized', 'ring', 'stream', 'agent'])
def test_logged_numbers_are_those_of_a_bare_loop(name, undisturbed):
  states, metrics = bare_loop(make(name), 15)
  (logged, _), seen = undisturbed(name)
  lines = [line for line in logged if any(key.startswith('train/') for key in line)]
  assert [line['step'] for line in lines] == [7, 14, 21, 28, 35, 40]
  for line, window in zip(lines, (metrics[:7], metrics[7:14]), strict=False):
    for key in window[0]:
      total = np.sum([step[key].total for step in window])
      np.testing.assert_allclose(line[f'train/{key}'], total / sum(step[key].count for step in window), rtol=2e-5)
  assert [line['step'] for line in logged if 'state_sha256' in line] == [0, 1, 10]
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-3, atol=2e-5), seen[15], states[15])


def test_order_within_a_step_is_the_contract(tmp_path):
  config = make('classifier', steps=5, log_every=2, eval_every=4, checkpoint_every=4)
  records = [(r.step, r.status, sorted({name.split('/')[0] for name in r.metrics})) for r in drain(config, tmp_path)]
  train_, both = ['examples_per_second', 'seconds', 'train'], ['test', 'validation']
  assert records == [
    (0, 'compiling', []),
    (0, 'training', []),
    (2, 'training', train_),
    (4, 'training', train_),
    (4, 'evaluating', []),
    (4, 'training', ['validation']),
    (4, 'saving', []),
    (5, 'training', train_),
    (5, 'saving', []),
    (5, 'evaluating', []),
    (5, 'done', both),
  ]
  kinds = [(line['step'], sorted({key.split('/')[0] for key in line} - {'step'})) for line in recorder.read(tmp_path)]
  assert kinds == [
    (0, ['state_sha256']),
    (1, ['state_sha256']),
    (2, train_),
    (4, train_),
    (4, ['validation']),
    (5, train_),
    (5, both),
  ]


def test_metrics_are_fetched_one_step_late():
  """When the numbers of step 2 are told, step 3 has been handed to the devices."""
  config, asked = make('classifier', steps=4, log_every=2, eval_every=0), []
  experiment = config.build()
  source = experiment.train

  class Noting(type(source)):
    def indices(self, step):
      asked.append(step)
      return super().indices(step)

  noting = Noting(Remote(source.examples), source.batch_size)
  with contextlib.closing(train(config, experiment=dataclasses.replace(experiment, train=noting))) as records:
    record = next(record for record in records if record.metrics)
    assert record.step == 2 and int(record.state.step) == 3


@dataclasses.dataclass
class Remote:
  """Examples that the feed cannot keep on the devices."""

  arrays: Arrays

  def __len__(self):
    return len(self.arrays)

  def rows(self, indices):
    return self.arrays.rows(indices)

  def fingerprint(self):
    return self.arrays.fingerprint()


def test_the_state_of_a_record_can_be_used():
  config = make('classifier', steps=4, log_every=1, eval_every=0)
  experiment = config.build()
  batch = experiment.train.examples.rows(np.arange(3))
  norms = []
  for record in train(config, experiment=experiment):
    if record.state is not None:
      assert experiment.predict(record.state, batch).shape == (3, 10)
      norms.append(float(jnp.linalg.norm(record.state.params['dense_0']['kernel'])))
  assert len(set(norms)) == 4  # of steps 0, 2, 3 and 4: a step's numbers are told when the next has been taken


def test_without_a_workdir_nothing_is_written(tmp_path, monkeypatch, undisturbed):
  monkeypatch.chdir(tmp_path)
  records = drain(make('classifier'))
  assert list(tmp_path.iterdir()) == []
  assert records[-1].metrics == undisturbed('classifier')[0][1]['metrics']


def test_a_run_stays_in_its_workdir_where_the_current_folder_changes(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  config = make('classifier', steps=1, eval_every=0)
  records = train(config, 'run')
  (tmp_path / 'other').mkdir()
  monkeypatch.chdir('other')
  next(records)
  monkeypatch.chdir('/')
  collections.deque(records, maxlen=0)
  assert (tmp_path / 'run' / 'result.json').exists() and not list((tmp_path / 'other').iterdir())


@contextlib.contextmanager
def compiled_once(caplog, *names: str):
  """Checks that these are compiled within, and nothing is compiled twice."""
  caplog.clear()
  with jax.log_compiles():
    yield
  messages = [record.getMessage() for record in caplog.records]
  found = collections.Counter(match[1] for text in messages if (match := re.match(r'Compiling (?:jit\()?(\w+)', text)))
  assert max(found.values(), default=1) == 1 and {'step', 'eval_step', '_first_state'} & found.keys() == set(names)


def test_a_start_traces_the_step_once():
  config, traced = make('classifier', steps=1), []
  experiment = config.build()

  def train_step(*args):
    traced.append(1)
    return experiment.task.train_step(*args)

  task = experiment.task._replace(train_step=train_step)
  drain(config, experiment=dataclasses.replace(experiment, task=task, evaluators={}, final_evaluators={}))
  assert len(traced) == 1


def test_a_step_reads_nothing_back(monkeypatch):
  reads = []
  value = ArrayImpl._value
  monkeypatch.setattr(ArrayImpl, '_value', property(lambda self: reads.append(1) or value.fget(self)))
  counts = []
  for steps in (20, 90):
    reads.clear()
    drain(make('classifier', steps=steps, log_every=1000, eval_every=0, checkpoint_every=0))
    counts.append(len(reads))
  assert counts[0] == counts[1] > 0


def stop_at(records, step: int, status: str = '') -> None:
  """Takes records until the one of (or after) `step`, of `status` if given, and abandons the run there."""
  with contextlib.closing(records):
    next(record for record in records if record.step >= step and status in ('', record.status))


def interrupt(config, workdir, step: int, status: str, signum=signal.SIGTERM, experiment=None) -> Interrupted:
  """What a signal leads to that arrives at the first record of `step` (or later) and `status`."""
  with pytest.raises(Interrupted) as caught, Stop() as stop:
    records = train(config, workdir, stop, experiment=experiment)
    next(record for record in records if record.step >= step and record.status == status)
    signal.raise_signal(signum)
    collections.deque(records, maxlen=0)
  return caught.value


def test_a_run_abandoned_between_checkpoints_ends_with_the_same_bits(tmp_path, undisturbed):
  """As does one of each family, two tests below."""
  for step in (8, 19, 36):
    stop_at(train(make('classifier'), tmp_path), step)
  assert not (tmp_path / 'result.json').exists()
  drain(make('classifier'), tmp_path)
  assert outcome(tmp_path) == undisturbed('classifier')[0]


def test_a_run_stopped_by_signals_ends_with_the_same_bits(tmp_path, undisturbed):
  moments = ((0, 'compiling'), (7, 'training'), (15, 'saving'), (20, 'evaluating'), (40, 'saving'), (40, 'evaluating'))
  for step, status in moments:
    error = interrupt(make('classifier'), tmp_path, step, status)
    assert error.exit_code == 143 and str(tmp_path) in str(error) and f'step {error_step(error)}' in str(error)
    assert error_step(error) in (step, step + 1)
  drain(make('classifier'), tmp_path)
  assert outcome(tmp_path) == undisturbed('classifier')[0]


@pytest.mark.parametrize('name', NAMES)
def test_every_family_goes_on_with_the_same_bits_and_compiles_once_at_each_start(name, tmp_path, caplog, undisturbed):
  with compiled_once(caplog, '_first_state', 'step', 'eval_step'):
    interrupt(make(name), tmp_path, 20, 'saving')
  stop_at(train(make(name), tmp_path), 33)
  assert not (tmp_path / 'result.json').exists()
  with compiled_once(caplog, 'step', 'eval_step'):
    drain(make(name), tmp_path)
  assert outcome(tmp_path) == undisturbed(name)[0]


def error_step(error: Interrupted) -> int:
  return int(re.search(r'at step (\d+)', str(error))[1])


def test_ctrl_c_without_a_workdir():
  error = interrupt(make('classifier'), '', 10, 'training', signal.SIGINT)
  assert error.exit_code == 130 and 'SIGINT' in str(error) and 'no workdir' in str(error)


def test_a_signal_ends_an_evaluation_at_once(tmp_path, undisturbed):
  config = make('classifier')
  experiment, reached = config.build(), []

  def slow(state, key):
    yield 'loss', 1.0
    signal.raise_signal(signal.SIGTERM)
    reached.append(state)
    yield 'accuracy', 1.0

  with pytest.raises(Interrupted):
    drain(config, tmp_path, dataclasses.replace(experiment, evaluators={'validation': slow}))
  assert not reached and not any('validation/loss' in line for line in recorder.read(tmp_path))
  drain(config, tmp_path)
  assert outcome(tmp_path) == undisturbed('classifier')[0]


def test_a_signal_within_a_save_waits_for_it(tmp_path, undisturbed, monkeypatch):
  config, save, signals = make('classifier'), checkpoint.Checkpoints.save, [signal.SIGTERM]

  def signalled(*args):
    while signals:
      signal.raise_signal(signals.pop())
    save(*args)

  with monkeypatch.context() as patch, pytest.raises(Interrupted) as caught:
    patch.setattr(checkpoint.Checkpoints, 'save', signalled)
    drain(config, tmp_path)
  assert error_step(caught.value) == 6 and checkpoint.Checkpoints(tmp_path / 'checkpoints').steps() == [5, 6]
  drain(config, tmp_path)
  assert outcome(tmp_path) == undisturbed('classifier')[0]


def test_handlers_are_given_back_after_a_run():
  before = [signal.getsignal(signum) for signum in (signal.SIGINT, signal.SIGTERM)]
  drain(make('classifier', steps=1))
  assert [signal.getsignal(signum) for signum in (signal.SIGINT, signal.SIGTERM)] == before
  assert signal.set_wakeup_fd(-1) == -1


def test_a_stop_at_an_evaluation_costs_no_best_checkpoint(tmp_path):
  """The evaluation done at the next start scores the checkpoint of its step."""
  config = make('classifier', steps=20, eval_every=20, checkpoint_every=20)
  interrupt(config, tmp_path, 20, 'evaluating')
  drain(config, tmp_path)
  manifest = (tmp_path / 'checkpoints' / '20' / 'manifest').read_text()
  scored = json.loads(manifest.splitlines()[1])['score']
  assert (
    scored == next(line for line in recorder.read(tmp_path) if 'validation/accuracy' in line)['validation/accuracy']
  )


@pytest.mark.parametrize('name', ['classifier', 'stream'])
def test_a_data_parallel_run_goes_on_with_the_same_bits(name, tmp_path, caplog):
  config = make(name, mesh=MeshShape(8))
  with compiled_once(caplog, '_first_state', 'step', 'eval_step'):
    drain(config, tmp_path / 'alone')
  interrupt(config, tmp_path / 'stopped', 23, 'training')
  with compiled_once(caplog, 'step', 'eval_step'):
    drain(config, tmp_path / 'stopped')
  assert outcome(tmp_path / 'stopped') == outcome(tmp_path / 'alone')


def test_more_steps_go_on_from_the_end(tmp_path, undisturbed):
  drain(make('regularized', steps=20), tmp_path)
  drain(make('regularized'), tmp_path)
  assert outcome(tmp_path)[1] == undisturbed('regularized')[0][1]


@pytest.mark.parametrize(
  'change',
  [
    {'mesh': MeshShape(9)},
    {'mesh': MeshShape(8), 'batch_size': 36},
    {'log_every': 0},
    {'seed': -1},
    {'seed': 2**32},
    {'steps': 2**31},
  ],
)
def test_what_cannot_be_run_is_refused_before_anything_is_written(change, tmp_path):
  config = make('classifier', **change)
  with pytest.raises(ConfigError, match=f'config.{list(change)[-1]}'):
    drain(config, tmp_path / 'run')
  assert not (tmp_path / 'run').exists()


def test_a_wrong_optimizer_is_told_before_any_data_are_fetched():
  with pytest.raises(ConfigError, match='nearest: adam'):
    make('classifier', optimizer=Optimizer('adamm')).validate()


def test_seconds_and_examples_add_up(tmp_path):
  config = make('classifier')
  stop_at(train(config, tmp_path), 20, 'saving')
  drain(config, tmp_path)
  seconds = [line['seconds'] for line in recorder.read(tmp_path) if 'seconds' in line]
  result = json.loads((tmp_path / 'result.json').read_text())
  assert all(early < late for early, late in itertools.pairwise(seconds)) and result['seconds'] >= seconds[-1]
  assert result['examples'] == 40 * 32 and result['steps'] == 40


def test_a_run_says_how_it_starts_and_adds_nothing_once_it_has_finished(tmp_path, caplog):
  config = make('classifier', steps=10, eval_every=0)
  first = drain(config, tmp_path)
  parameters, examples = 64 * 32 + 32 + 32 * 10 + 10, 1_257
  assert [line.split(maxsplit=1) for line in first[1].note.splitlines()] == [
    ['devices', f'{device()}, 1 in use'],
    ['parameters', f'{parameters:,}'],
    ['examples', f'{examples:,} for training, {examples / 32:.1f} steps per epoch'],
    ['step', '0 of 10'],
  ]
  before = content(tmp_path)
  with compiled_once(caplog):
    again = drain(config, tmp_path)
  assert content(tmp_path) == before and again[-1].metrics == first[-1].metrics
  assert [record.status for record in again] == ['compiling', 'training', 'done'] and 'already done' in again[1].note
  assert 'resumed at 10 of 20' in drain(dataclasses.replace(config, steps=20), tmp_path)[1].note


def test_the_learning_rate_and_the_norms_of_each_step_are_logged():
  optimizer = Optimizer('sgd', lr=0.1, schedule='cosine', warmup_steps=2, clip_norm=1e-3)
  config = make('classifier', steps=6, log_every=1, eval_every=0, optimizer=optimizer, log_norms=True)
  records = [record for record in drain(config) if 'train/loss' in record.metrics]
  states, _ = bare_loop(config, 6)
  rates = [0.05, 0.1, *(0.05 * (1 + np.cos(np.pi * done / 4)) for done in range(4))]
  for record, rate, old, new in zip(records, rates, states[:-1], states[1:], strict=True):
    moved = np.linalg.norm(ravel_pytree(new.params)[0] - ravel_pytree(old.params)[0])
    got = record.metrics
    np.testing.assert_allclose(got['train/learning_rate'], rate, rtol=1e-6)
    np.testing.assert_allclose(got['train/update_norm'], moved, rtol=1e-3)
    np.testing.assert_allclose(got['train/update_norm'], rate * 1e-3, rtol=1e-4)  # the gradient is clipped to that
    assert got['train/gradient_norm'] > 0.1
  plain = drain(dataclasses.replace(config, log_norms=False, steps=1))
  assert not any('norm' in name for record in plain for name in record.metrics)


def test_a_run_stops_early_at_the_same_step_however_often_it_is_killed(tmp_path, undisturbed):
  config = make('classifier', eval_every=5, checkpoint_every=3, patience=2)
  experiment = dataclasses.replace(config.build(), score=lambda metrics: metrics['validation/loss'])  # better at first
  records = drain(config, tmp_path / 'alone', experiment)
  assert records[-1].step == 15 and any('no better score in 2 evaluations' in record.note for record in records)
  for step in (7, 11, 13):
    stop_at(train(config, tmp_path / 'killed', experiment=experiment), step)
  interrupt(config, tmp_path / 'killed', 15, 'evaluating', experiment=experiment)
  drain(config, tmp_path / 'killed', experiment)
  assert outcome(tmp_path / 'killed') == outcome(tmp_path / 'alone')
  result = outcome(tmp_path / 'alone')[1]
  assert result['steps'] == 15 and result['stopped_early']
  before = content(tmp_path / 'alone')
  drain(config, tmp_path / 'alone', experiment)
  assert content(tmp_path / 'alone') == before
  on = dataclasses.replace(config, patience=0)
  drain(on, tmp_path / 'alone', dataclasses.replace(experiment, config=on))
  went_on = outcome(tmp_path / 'alone')[1]
  assert not went_on['stopped_early'] and went_on['state_sha256'] == undisturbed('classifier')[0][1]['state_sha256']


@pytest.mark.parametrize(('change', 'told'), [({'eval_every': 0}, 'is off'), ({}, 'has no score')])
def test_patience_with_nothing_to_watch_is_refused(change, told):
  config = make('classifier', patience=1, **change)
  with pytest.raises(ConfigError, match=f'config.patience=1: .*{told}'):
    drain(config, experiment=dataclasses.replace(make('classifier').build(), score=None))


def test_streams_of_noise_follow_the_seed():
  ends = [untold(make('regularized', steps=3, seed=seed)).state for seed in (0, 0, 1)]
  hashes = list(map(tree_sha256, ends))
  assert hashes[0] == hashes[1] != hashes[2]
