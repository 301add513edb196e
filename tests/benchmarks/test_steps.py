"""The benchmark of steps: every library takes the same ones, and what is told of their times."""

import importlib.util
import json
import subprocess
import sys
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from benchmarks import limits, measure, ours, report, steps, stock
from benchmarks.families import FAMILIES, Family, images, noise, texts
from benchmarks.libraries import LIBRARIES
from launch import cpu
from research.errors import ConfigError, RunError

TINY = [
  Family('mlp', '', images(8, 6, num_classes=3), lambda library: library.mlp(6, (5, 4), 3)),
  Family('cnn', '', images(8, 8, 8, 1, num_classes=3), lambda library: library.cnn(8, (2, 3), 5, 3)),
  Family('resnet', '', images(8, 8, 8, 3, num_classes=3), lambda library: library.resnet(8, 8, 3, 'group')),
  Family('resnet_batch', '', images(8, 8, 8, 3, num_classes=3), lambda library: library.resnet(8, 8, 3, 'batch')),
  Family('lstm', '', texts(8, 3, 5), lambda library: library.language_model('lstm', 5, 4)),
  Family('gru', '', texts(8, 3, 5), lambda library: library.language_model('gru', 5, 4)),
  Family('gpt', '', texts(8, 4, 5), lambda library: library.gpt(5, 1, 8, 2, 4)),
  Family('dcgan', '', noise(8, 3, 28, 28, 1), lambda library: library.generator(3, (4, 2))),
]


@pytest.fixture(scope='module', params=TINY, ids=lambda family: family.name)
def begun(request, tmp_path_factory):
  """A family, the file of our first parameters, and our loss with them."""
  task, key = ours.task_of(request.param), jax.random.key(0)

  @jax.jit
  def begin(batch):
    state = task.init(key, batch)
    return state.params, task.train_step(state, batch, key)[1]['loss']

  params, loss = begin(request.param.batch())
  path = tmp_path_factory.mktemp('weights') / 'weights.npz'
  ours.save(path, params)
  return request.param, path, loss.total / loss.count


def test_stock_layers_have_our_loss(begun):
  family, path, loss = begun
  step, (params, stats, moments, _) = stock.abstract_step(family)
  params = stock.loaded(params, np.load(path))
  stats, moments = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), (stats, moments))
  np.testing.assert_allclose(
    jax.jit(lambda *state: step(*state)[-1])(params, stats, moments, family.batch()), loss, 1e-5
  )


@pytest.mark.parametrize('tuned', [False, True])
def test_torch_has_our_loss(begun, tuned):
  pytest.importorskip('torch', reason='of the extra `peers`')
  from benchmarks import torch_peer

  family, path, loss = begun
  np.testing.assert_allclose(torch_peer.steps(family, path, tuned)(1), loss, 1e-5)


def test_keras_has_our_loss(begun, monkeypatch):
  monkeypatch.setenv('KERAS_BACKEND', 'jax')
  pytest.importorskip('keras', reason='of the extra `peers`')
  from benchmarks import keras_peer

  family, path, loss = begun
  with jax.numpy_rank_promotion('allow'):
    np.testing.assert_allclose(keras_peer.steps(family, path)(1), loss, 1e-5)


class InProcess(steps.Process):
  """Measures here what it would in a process of its own."""

  def __init__(self, family, library, folder):
    self._family, self._library = family, library
    self._run = LIBRARIES[library].begin(TINY[0], folder / 'weights.npz')

  def __exit__(self, *_):
    pass

  def answer(self):
    return measure.start(self._run)

  def ask(self, seconds):
    return measure.block(self._run, seconds)


@pytest.fixture
def processes_here(monkeypatch):
  monkeypatch.setattr(steps, 'Process', InProcess)
  monkeypatch.setattr(cpu, 'tune', lambda: [])  # which would change the environment of later tests


def test_libraries_take_turns(processes_here):
  results = steps.in_turn(TINY[0], ('ours', 'bare', 'stock'), rounds=3, seconds=0.01)
  assert list(results) == ['ours', 'bare', 'stock']
  for result in results.values():
    assert len(result['step_seconds']) == 3 and 0 < min(result['step_seconds']) < result['first_seconds']
    assert result['peak_bytes'] > 1e8
    np.testing.assert_allclose(result['losses'], results['ours']['losses'], rtol=1e-5)


def test_the_machine_is_as_fast_as_it_ever_was(processes_here, monkeypatch, capsys):
  given = {'families': ['mlp', 'cnn'], 'libraries': [], 'rounds': 1, 'seconds': 0.01, 'record': True}
  monkeypatch.setattr(steps.flags, 'FLAGS', SimpleNamespace(**given))
  monkeypatch.setattr(steps, 'check_complete', lambda libraries: None)
  monkeypatch.setattr(steps, 'FAMILIES', {'mlp': TINY[0], 'cnn': TINY[0]})
  rates = iter([(1e9, 5e9), (3e9, 2e9)])
  monkeypatch.setattr(steps, '_rates', lambda: dict(zip(RATES, next(rates), strict=True)))
  monkeypatch.setattr(
    report, 'record', lambda results: [[result[rate] for rate in RATES] for result in results.values()]
  )
  steps.main()
  printed = capsys.readouterr().out
  assert printed.splitlines()[-2:] == ['[3000000000.0, 5000000000.0]'] * 2
  assert [row[:2] for row in cells(printed)[1:3]] == [['mlp', 'ours, one device'], ['step', 'library']]


RATES = ('flops_per_second', 'bytes_per_second')


def rates_of(result):
  return [result[rate] for rate in RATES]


def test_a_library_that_takes_other_steps_is_told(processes_here, monkeypatch):
  monkeypatch.setitem(LIBRARIES, 'stock', LIBRARIES['stock'].__class__('', lambda family, weights: lambda steps: 1.0))
  results = steps.in_turn(TINY[0], ('ours', 'stock'), rounds=1, seconds=0.01)
  own = results['ours']['losses']
  assert results['stock'] == {'error': f'losses [1.0, 1.0] are not those of ours, {own}, on the same parameters'}


def test_a_block_is_taken_anew_while_others_are_at_work(processes_here, monkeypatch):
  blocks = [{'step_seconds': 1.0 + number, 'peak_bytes': 1, 'others': load} for number, load in enumerate(LOADS)]
  monkeypatch.setattr(InProcess, 'ask', lambda *_: blocks.pop(0))
  result = steps.in_turn(TINY[0], ('ours',), rounds=2, seconds=0.01)['ours']
  assert result['step_seconds'] == [2.0, 5.0] and result['disturbed'] == 1 and not blocks


LOADS = (0.5, 0.0, 0.5, 0.5, 0.2)


def test_others_are_seen_at_work():
  before = measure.others_seconds()
  subprocess.run([sys.executable, '-c', 'import time\nwhile time.process_time() < 0.3: pass'], check=True)
  assert 0.2 < measure.others_seconds() - before < 30


def test_a_process_that_ends_tells_why(tmp_path):
  with steps.Process('nothing', 'stock', tmp_path) as process, pytest.raises(RunError, match="^KeyError: 'nothing'$"):
    process.answer()
  with pytest.raises(RunError, match='nothing: no memory'):
    steps.Process('nothing', 'ours', tmp_path).failed(RunError('no memory'))


@pytest.fixture
def without_torch(monkeypatch):
  find = importlib.util.find_spec
  monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None if name == 'torch' else find(name))


def test_a_library_that_is_missing_is_told(processes_here, without_torch):
  results = steps.in_turn(TINY[0], ('ours', 'torch'), rounds=1, seconds=0.01)
  line = "torch is not installed; pip install -e '.[peers]'"
  assert results['torch'] == {'error': line} and results['ours']['step_seconds']
  with pytest.raises(ConfigError, match='^--record: torch is not installed; pip install'):
    steps.check_complete(list(LIBRARIES))


def test_choices():
  assert steps.chosen('families', ['cnn', 'mlp'], ['mlp', 'cnn', 'gpt']) == ['mlp', 'cnn']
  with pytest.raises(ConfigError, match='--families=cmn: is unknown; nearest: cnn'):
    steps.chosen('families', ['cmn'], ['mlp', 'cnn'])
  with pytest.raises(ConfigError, match='--record: needs every library; leave --libraries out'):
    steps.check_complete(['ours'])


def test_what_a_step_asks_of_the_machine():
  found = limits.work(TINY[0])
  layers = [(6, 5), (5, 4), (4, 3)]
  products = [size for size in layers for _ in range(3)][1:]  # forward, two back; none to the inputs
  assert found['parameters'] == sum(before * after + after for before, after in layers)
  assert found['flops'] == sum(2 * 8 * before * after for before, after in products)
  moved = sum(4 * (8 * before + before * after + 8 * after) for before, after in products)
  assert found['bytes'] == moved + 7 * 4 * found['parameters']
  assert report.shortest({**found, 'flops_per_second': found['flops'], 'bytes_per_second': 1e9}) == 1
  assert report.shortest({**found, 'flops_per_second': 1e9, 'bytes_per_second': found['bytes'] / 2}) == 2


def measured(*seconds, disturbed=0):
  times = {'first_seconds': 2.5, 'step_seconds': seconds, 'disturbed': disturbed}
  return {**times, 'losses': [1.0, 0.9], 'peak_bytes': 2 * 10**8}


RESULTS = {
  'mlp': {
    **{'date': '2030-01-02', 'commit': 'abc', 'device': '1 x CPU', 'cores': 2, 'versions': {'jax': '1.2'}, 'rounds': 3},
    **{'flops_per_second': 2e11, 'bytes_per_second': 1e10, 'flops': 2e8, 'bytes': 1e6, 'parameters': 10},
    'libraries': {
      'ours': measured(0.002, 0.004, 0.002),
      'ours_two': measured(0.008, 0.008, 0.009),
      'bare': measured(0.002, 0.004, 0.002),
      'stock': measured(0.004, 0.004, 0.004),
      'torch': measured(0.004, 0.008, 0.002),
      'torch_tuned': measured(0.002, 0.004, 0.002),
      'torch_compile': {'error': 'no compiler'},
      'keras': measured(0.004, 0.004, 0.004, disturbed=1),
    },
  }
}


def cells(table):
  rows = [[cell.strip() for cell in line.split('|')[1:-1]] for line in table.splitlines() if line.startswith('|')]
  return [rows[0], *rows[2:]]


def test_tables_are_of_pairs_and_medians():
  assert cells(report.overview(RESULTS))[1:] == [
    ['mlp', 'one', '1.00', '0.50', '0.50', '0.60 met', '1.00', '0.75 missed', '', '0.50'],
    ['mlp', 'two', '4.00', '2.00', '2.00', '0.60 missed', '4.00', '0.75 missed', '', '2.00'],
  ]
  assert cells(report.details(RESULTS))[5] == ['mlp', 'PyTorch', '4.0', '0.50', '0.50 - 1.00', '200', '2.5', '25%']
  assert report.details(RESULTS).splitlines()[-2:] == [
    '* mlp, PyTorch compiled: no compiler',
    '* mlp, Keras on JAX: in 1 of 3 turns other processes were at work',
  ]
  assert cells(report.sizes(RESULTS))[1] == ['mlp', FAMILIES['mlp'].about, '10', '0.20', '1', '1.0']
  assert report.conditions(RESULTS) == (
    'mlp: 2 cores of 1 x CPU (200 GFLOP/s, 10 GB/s), commit abc, 2030-01-02, 3 rounds; jax 1.2.'
  )


def test_a_record_keeps_what_was_not_measured_again(tmp_path, monkeypatch):
  for name, file in (('RECORD', 'results/steps.json'), ('README', 'README.md'), ('PICTURE', 'steps.png')):
    monkeypatch.setattr(report, name, tmp_path / file)
  report.README.write_text('before\n<!-- steps -->\nold\n<!-- /steps -->\nafter\n')
  report.record({'cnn': RESULTS['mlp']})
  assert report.record(RESULTS) == [report.RECORD, report.PICTURE, report.README]
  assert list(json.loads(report.RECORD.read_text())) == ['mlp', 'cnn']
  table = report.table(json.loads(report.RECORD.read_text()))
  assert report.README.read_text() == f'before\n<!-- steps -->\n{table}\n<!-- /steps -->\nafter\n'
  assert report.PICTURE.stat().st_size > 10**4


def test_bars_are_over_torch():
  (axis,) = report.bars({**RESULTS, 'cnn': {'libraries': {'torch': {'error': ''}}}}).axes
  heights = {bars.get_label(): [bar.get_height() for bar in bars] for bars in axis.containers}
  assert heights['ours, one device'] == [0.5] and heights['PyTorch compiled'] == [0]
