"""The loop against a bare one, its order, what it compiles, and that a run stopped anywhere ends with the same bits."""

import collections
import contextlib
import dataclasses
import itertools
import json
import operator
import re
import signal
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax._src.array import ArrayImpl
from runs import outcome

from launch.flags import load_config
from research import random
from research.data.examples import Arrays
from research.errors import ConfigError
from research.evaluate import figures
from research.train import checkpoint, recorder
from research.train.loop import train
from research.train.mesh import MeshShape
from research.train.optimizer import Optimizer
from research.train.run import Interrupted
from research.train.signals import Stop
from research.train.workdir import tree_sha256

CONFIGS = Path(__file__).parents[1] / 'configs'
NAMES = ('classifier', 'regularized', 'ring', 'stream', 'transcriber', 'translator', 'series', 'forecaster')


def make(name: str, **changes):
  return dataclasses.replace(load_config(f'{CONFIGS / name}.py'), **changes)


def drain(config, workdir='', experiment=None) -> list:
  return list(train(experiment or config.build(), config, workdir))


def untold(config):
  """The last record of a run that evaluates nothing, and so compiles its steps alone."""
  return drain(config, experiment=dataclasses.replace(config.build(), evaluators={}, final_evaluators={}))[-1]


@pytest.fixture(scope='module')
def undisturbed(tmp_path_factory):
  """Outcome of each config's run when it is left alone."""
  outcomes = {}

  def get(name: str) -> tuple:
    if name not in outcomes:
      folder = tmp_path_factory.mktemp(name)
      drain(make(name), folder)
      outcomes[name] = outcome(folder)
    return outcomes[name]

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


@pytest.mark.parametrize('name', NAMES)
def test_logged_numbers_are_those_of_a_bare_loop(name, undisturbed):
  states, metrics = bare_loop(make(name), 14)
  lines = [line for line in undisturbed(name)[0] if any(key.startswith('train/') for key in line)]
  assert [line['step'] for line in lines] == [7, 14, 21, 28, 35, 40]
  for line, window in zip(lines, (metrics[:7], metrics[7:]), strict=False):
    for key in window[0]:
      total = np.sum([step[key].total for step in window])
      np.testing.assert_allclose(line[f'train/{key}'], total / sum(step[key].count for step in window), rtol=2e-5)
  assert [line['step'] for line in undisturbed(name)[0] if 'state_sha256' in line] == [0, 1, 10]
  last = untold(make(name, steps=14, checkpoint_every=0)).state
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-3, atol=2e-5), last, states[-1])


def test_hash_lines_are_of_the_states_of_their_steps(tmp_path):
  config = make('classifier', steps=1)
  last = drain(config, tmp_path)[-1].state
  hashes = [line['state_sha256'] for line in recorder.read(tmp_path) if 'state_sha256' in line]
  assert hashes[1] == tree_sha256(last) == json.loads((tmp_path / 'result.json').read_text())['state_sha256']
  moved = last.replace(params=jax.tree.map(lambda leaf: leaf.at[(0,) * leaf.ndim].multiply(1 + 1e-6), last.params))
  assert tree_sha256(moved) != hashes[1] != hashes[0]


def test_order_within_a_step_is_the_contract(tmp_path):
  config = make('classifier', steps=5, log_every=2, evaluate_every=4, checkpoint_every=4)
  records = [(r.step, r.status, sorted({name.split('/')[0] for name in r.metrics})) for r in drain(config, tmp_path)]
  train_, both = ['examples_per_second', 'seconds', 'train'], ['test', 'validation']
  assert records == [
    (0, 'compiling', []),
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
  config, asked = make('classifier', steps=4, log_every=2, evaluate_every=0), []
  experiment = config.build()
  source = experiment.train

  class Noting(type(source)):
    def indices(self, step):
      asked.append(step)
      return super().indices(step)

  noting = Noting(Remote(source.examples), source.batch_size)
  with contextlib.closing(train(dataclasses.replace(experiment, train=noting), config)) as records:
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
  config = make('classifier', steps=4, log_every=1, evaluate_every=0)
  experiment = config.build()
  batch = experiment.train.examples.rows(np.arange(3))
  norms = []
  for record in train(experiment, config):
    if record.state is not None:
      assert experiment.predict(record.state, batch).shape == (3, 10)
      norms.append(float(jnp.linalg.norm(record.state.params['Dense_0']['kernel'])))
  assert len(set(norms)) == 3  # of steps 2, 3 and 4: a step's numbers are told when the next has been taken


def test_without_a_workdir_nothing_is_written(tmp_path, monkeypatch, undisturbed):
  monkeypatch.chdir(tmp_path)
  records = drain(make('classifier'))
  assert list(tmp_path.iterdir()) == []
  assert records[-1].metrics == undisturbed('classifier')[1]['metrics']


def test_a_run_stays_in_its_workdir_where_the_current_folder_changes(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  config = make('classifier', steps=1, evaluate_every=0)
  records = train(config.build(), config, 'run')
  (tmp_path / 'other').mkdir()
  monkeypatch.chdir('other')
  next(records)
  monkeypatch.chdir('/')
  collections.deque(records, maxlen=0)
  assert (tmp_path / 'run' / 'result.json').exists() and not list((tmp_path / 'other').iterdir())


def compilations(caplog) -> collections.Counter:
  messages = [record.getMessage() for record in caplog.records]
  return collections.Counter(match[1] for text in messages if (match := re.match(r'Compiling (?:jit\()?(\w+)', text)))


ON_DEVICES = [('classifier', 1), ('classifier', 8), ('stream', 8), ('transcriber', 1), ('translator', 1)]


@pytest.mark.parametrize(('name', 'devices'), [*ON_DEVICES, ('series', 8), ('forecaster', 1)])
def test_a_run_compiles_its_step_once_and_its_evaluation_once(tmp_path, caplog, name, devices):
  config = make(name, mesh=MeshShape(devices))
  with jax.log_compiles():
    drain(dataclasses.replace(config, steps=20), tmp_path)
    fresh = compilations(caplog)
    caplog.clear()
    drain(config, tmp_path)
    resumed = compilations(caplog)
  assert fresh['step'] == resumed['step'] == 1 and fresh['sweep'] == resumed['sweep'] == 1
  assert fresh['_first_state'] == 1 and resumed['_first_state'] == 0
  assert max(fresh.values()) == max(resumed.values()) == 1


def test_a_step_reads_nothing_back(monkeypatch):
  reads = []
  value = ArrayImpl._value
  monkeypatch.setattr(ArrayImpl, '_value', property(lambda self: reads.append(1) or value.fget(self)))
  counts = []
  for steps in (20, 90):
    reads.clear()
    drain(make('classifier', steps=steps, log_every=1000, evaluate_every=0, checkpoint_every=0))
    counts.append(len(reads))
  assert counts[0] == counts[1] > 0


def stop_at(records, step: int, status: str = '') -> None:
  """Takes records until the one of (or after) `step`, of `status` if given, and abandons the run there."""
  with contextlib.closing(records):
    next(record for record in records if record.step >= step and status in ('', record.status))


def interrupt(config, workdir, step: int, status: str, signum=signal.SIGTERM, experiment=None) -> Interrupted:
  """What a signal leads to that arrives at the first record of `step` (or later) and `status`."""
  with pytest.raises(Interrupted) as caught, Stop() as stop:
    records = train(experiment or config.build(), config, workdir, stop)
    next(record for record in records if record.step >= step and record.status == status)
    signal.raise_signal(signum)
    collections.deque(records, maxlen=0)
  return caught.value


def test_a_run_abandoned_between_checkpoints_ends_with_the_same_bits(tmp_path, undisturbed):
  """As does every family of runs in the next test."""
  for step in (8, 19, 36):
    stop_at(train(make('classifier').build(), make('classifier'), tmp_path), step)
  assert not (tmp_path / 'result.json').exists()
  drain(make('classifier'), tmp_path)
  assert outcome(tmp_path) == undisturbed('classifier')


@pytest.mark.parametrize('name', NAMES)
def test_a_run_stopped_by_signals_and_abandoned_ends_with_the_same_bits(name, tmp_path, undisturbed):
  moments = ((0, 'compiling'), (7, 'training'), (10, 'evaluating'), (20, 'saving'), (40, 'saving'), (40, 'evaluating'))
  for step, status in moments if name == 'classifier' else moments[2:4]:
    error = interrupt(make(name), tmp_path, step, status)
    assert error.exit_code == 143 and str(tmp_path) in str(error) and f'step {error_step(error)}' in str(error)
    assert error_step(error) in (step, step + 1)
  if name != 'classifier':
    stop_at(train(make(name).build(), make(name), tmp_path), 33)
    assert not (tmp_path / 'result.json').exists()
  drain(make(name), tmp_path)
  assert outcome(tmp_path) == undisturbed(name)


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
  assert outcome(tmp_path) == undisturbed('classifier')


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
  assert outcome(tmp_path) == undisturbed('classifier')


def test_handlers_are_given_back_after_a_run():
  before = [signal.getsignal(signum) for signum in (signal.SIGINT, signal.SIGTERM)]
  drain(make('classifier', steps=1))
  assert [signal.getsignal(signum) for signum in (signal.SIGINT, signal.SIGTERM)] == before
  assert signal.set_wakeup_fd(-1) == -1


def test_a_stop_at_an_evaluation_costs_no_best_checkpoint(tmp_path):
  """The evaluation done at the next start scores the checkpoint of its step."""
  config = make('classifier', steps=20, evaluate_every=20, checkpoint_every=20)
  interrupt(config, tmp_path, 20, 'evaluating')
  drain(config, tmp_path)
  manifest = (tmp_path / 'checkpoints' / '20' / 'manifest').read_text()
  scored = json.loads(manifest.splitlines()[1])['score']
  assert (
    scored == next(line for line in recorder.read(tmp_path) if 'validation/accuracy' in line)['validation/accuracy']
  )


def scores(workdir) -> dict[int, float | None]:
  """By step of the checkpoints that are there."""
  manifests = {int(path.parent.name): path.read_text() for path in (workdir / 'checkpoints').glob('*/manifest')}
  return {step: json.loads(text.splitlines()[1])['score'] for step, text in sorted(manifests.items())}


def test_a_score_belongs_to_the_step_of_its_evaluation(tmp_path):
  config = make('classifier', steps=15, evaluate_every=10, checkpoint_every=5, keep_latest=3)
  final = drain(config, tmp_path)[-1].metrics
  evaluated = {line['step']: line.get('validation/accuracy') for line in recorder.read(tmp_path)}
  assert scores(tmp_path) == {5: None, 10: evaluated[10], 15: final['validation/accuracy']}


@dataclasses.dataclass
class Scored:
  """An evaluator whose scores are these, by step; and the experiment that is chosen by it."""

  by_step: dict[int, float]

  def __call__(self, state, key):
    if int(state.step) in self.by_step:  # else it is the number of a report that has failed
      yield 'score', self.by_step[int(state.step)]

  def experiment(self, config):
    evaluators = {'validation': self}
    score = operator.itemgetter('validation/score')
    return dataclasses.replace(config.build(), evaluators=evaluators, final_evaluators=evaluators, score=score)


@pytest.mark.parametrize(
  ('keep', 'saved', 'left'),
  [
    (2, [3, 6, 9, 10, 12, 14], {9: 0.7, 12: 0.7, 14: None}),
    (1, [3, 9, 10, 14], {9: 0.7, 10: None, 14: None}),
    (0, [10, 14], {10: None, 14: None}),
  ],
)
def test_a_new_best_is_saved_when_it_is_measured(keep, saved, left, tmp_path):
  scored = Scored({3: 0.5, 6: 0.4, 9: 0.7, 12: 0.7})
  config = make('classifier', steps=14, evaluate_every=3, checkpoint_every=10, keep_best=keep)
  records = drain(config, tmp_path, scored.experiment(config))
  assert [record.step for record in records if record.status == 'saving'] == saved
  assert scores(tmp_path) == left


def test_the_final_evaluation_may_make_the_last_checkpoint_the_best(tmp_path):
  scored = Scored({3: 0.5, 6: 0.4, 7: 0.6})
  config = make('classifier', steps=7, evaluate_every=3, checkpoint_every=0, keep_latest=1)
  drain(config, tmp_path, scored.experiment(config))
  assert scores(tmp_path) == {7: 0.6}
  assert not (tmp_path / 'checkpoints' / 'unfinished').exists()


def test_a_score_that_raises_costs_the_best_checkpoint_and_not_the_run(tmp_path, caplog):
  config = make('classifier', steps=2, evaluate_every=1)
  scored = dataclasses.replace(config.build(), score=operator.itemgetter('validation/nothing'))
  drain(config, tmp_path, scored)
  lines = [record.getMessage() for record in caplog.records]
  assert "step 1 has no score: it raised KeyError: 'validation/nothing'" in lines
  assert scores(tmp_path) == {2: None} and (tmp_path / 'result.json').exists()


def broken(outputs, rows):
  yield 'half', 0.5
  raise ZeroDivisionError('division by zero')


def without_a_figure(outputs, rows):
  figure, (axis,) = figures.make_figure(1, 1, (1, 1))
  axis.set_title(r'$\nonsense$')
  yield 'undrawn', figure


def with_broken_reports(evaluators):
  reports = (broken, without_a_figure)
  return {
    split: dataclasses.replace(evaluator, reports=(*reports, *evaluator.reports))
    for split, evaluator in evaluators.items()
  }


def test_a_report_that_raises_costs_no_other_number(tmp_path, told, fault):
  config = make('classifier', steps=10)
  experiment = config.build()
  evaluators = [with_broken_reports(part) for part in (experiment.evaluators, experiment.final_evaluators)]
  faulty = dataclasses.replace(experiment, evaluators=evaluators[0], final_evaluators=evaluators[1])
  with pytest.raises(ZeroDivisionError):
    drain(config, tmp_path, faulty)
  lines = recorder.read(tmp_path)
  assert [line['step'] for line in lines if 'validation/accuracy' in line] == [10, 10]
  assert lines[-1]['test/half'] == 0.5 and lines[-1]['test/accuracy'] > 0 and scores(tmp_path)[10] > 0
  line, code = told(lambda: drain(config, tmp_path, faulty))
  assert not (tmp_path / 'result.json').exists()
  drain(config, tmp_path)
  drain(config, tmp_path / 'alone')
  result, alone = ((path / 'result.json').read_text() for path in (tmp_path, tmp_path / 'alone'))
  assert json.loads(result)['metrics'] == json.loads(alone)['metrics']
  kept = 'all other numbers, and the last checkpoint, which is measured again'
  fault('a report of an evaluation raises', line, code, kept)


def test_a_number_that_is_not_finite_is_told_and_left_out(tmp_path, caplog):
  config = make('classifier', steps=4, evaluate_every=0)
  experiment = config.build()
  test = experiment.final_evaluators['test']
  undefined = lambda outputs, rows: iter([('undefined', float('nan')), ('defined', 1.0)])  # noqa: E731
  test = dataclasses.replace(test, reports=(*test.reports, undefined))
  drain(config, tmp_path, dataclasses.replace(experiment, final_evaluators={'test': test}))
  assert any('test/undefined is nan, so it is left out' in record.getMessage() for record in caplog.records)
  result = json.loads((tmp_path / 'result.json').read_text(), parse_constant=pytest.fail)
  assert result['metrics']['test/defined'] == 1 and 'test/undefined' not in result['metrics']
  assert not any('test/undefined' in line for line in recorder.read(tmp_path))


def test_a_damaged_line_of_metrics_is_left_out(tmp_path, fault, caplog):
  (tmp_path / 'metrics.jsonl').write_bytes(
    b'{"step": 1, "a": 2.0}\n{"step": 2, "a\n\xff\n3\n{"step": "4"}\n{"step": 5, "a/b": null}\n{"step": 3}\n'
  )
  assert recorder.read(tmp_path) == [{'step': 1, 'a': 2.0}, {'step': 3}]
  lines = [record.getMessage() for record in caplog.records]
  assert [re.search(r'line (\d+)', line)[1] for line in lines] == ['2', '3', '4', '5', '6']
  fault('a damaged line of metrics.jsonl', lines[0], 0, 'all; it is missing from the learning curves')


ALIKE = ('classifier', 'transcriber', 'translator', 'series', 'forecaster')


@pytest.mark.parametrize(('name', 'changes'), [*((name, {}) for name in ALIKE), ('stream', {'dropout': 0.0})])
def test_eight_devices_take_the_steps_of_one(name, changes):
  config = make(name, optimizer=Optimizer('sgd', lr=0.1), evaluate_every=0, **changes)
  states = [drain(dataclasses.replace(config, mesh=MeshShape(devices)))[-1] for devices in (1, 8)]
  one, eight = (record.state.params for record in states)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), one, eight)
  assert len(jax.tree.leaves(eight)[0].sharding.device_set) == 8
  for name, value in states[0].metrics.items():
    np.testing.assert_allclose(states[1].metrics[name], value, rtol=1e-4, err_msg=name)


@pytest.mark.parametrize('name', ['classifier', 'stream'])
def test_a_data_parallel_run_goes_on_with_the_same_bits(name, tmp_path):
  config = make(name, mesh=MeshShape(8))
  drain(config, tmp_path / 'alone')
  stop_at(train(config.build(), config, tmp_path / 'stopped'), 13)
  interrupt(config, tmp_path / 'stopped', 23, 'training')
  drain(config, tmp_path / 'stopped')
  assert outcome(tmp_path / 'stopped') == outcome(tmp_path / 'alone')


def test_more_steps_go_on_from_the_end(tmp_path):
  config = make('regularized')
  drain(dataclasses.replace(config, steps=20), tmp_path / 'longer')
  drain(config, tmp_path / 'longer')
  drain(config, tmp_path / 'alone')
  assert outcome(tmp_path / 'longer')[1] == outcome(tmp_path / 'alone')[1]


def test_a_run_without_evaluators_writes_no_empty_lines(tmp_path):
  config = make('ring', steps=10)
  drain(config, tmp_path, dataclasses.replace(config.build(), evaluators={}, final_evaluators={}))
  assert all(len(line) > 1 for line in recorder.read(tmp_path))


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


def test_streams_of_noise_follow_the_seed():
  ends = [drain(make('regularized', steps=3, evaluate_every=0, seed=seed))[-1].state for seed in (0, 0, 1)]
  hashes = list(map(tree_sha256, ends))
  assert hashes[0] == hashes[1] != hashes[2]


def test_seconds_and_examples_add_up(tmp_path):
  config = make('classifier')
  stop_at(train(config.build(), config, tmp_path), 20, 'saving')
  drain(config, tmp_path)
  seconds = [line['seconds'] for line in recorder.read(tmp_path) if 'seconds' in line]
  result = json.loads((tmp_path / 'result.json').read_text())
  assert all(early < late for early, late in itertools.pairwise(seconds)) and result['seconds'] >= seconds[-1]
  assert result['examples'] == 40 * 32 and result['steps'] == 40
