"""Evaluating a run from its workdir alone: the same numbers as the run's own, and nothing is touched."""

import dataclasses
import json
import os
import time
from pathlib import Path

import numpy as np
import pytest
from runs import make
from sklearn.metrics import accuracy_score

from research.errors import CheckpointError
from research.train.loop import train
from research.train.modules import import_file
from research.train.restore import restore_state
from research.train.workdir import saved_config, tree_sha256

ROOT = Path(__file__).resolve().parents[2]
store = import_file(ROOT / 'tests/configs/stored.py').store


@pytest.fixture(scope='module')
def running(tmp_path_factory):
  """A run that is held between its checkpoints of steps 10 and 20, and then ends; config, experiment and workdir."""
  config = import_file(ROOT / 'experiments/mlp_breast_cancer/config.py').get_config('tiny')
  config.eval_every, config.checkpoint_every, config.keep_latest = 10, 10, 3
  experiment, workdir = config.build(), tmp_path_factory.mktemp('run')
  records = train(config, workdir, experiment=experiment)
  while next(records).step < 20:
    pass
  for _ in range(200):  # it is saved in the background
    if not (workdir / 'checkpoints' / '10').exists():
      time.sleep(0.05)
  yield config, experiment, workdir
  list(records)


@pytest.fixture(scope='module')
def workdir(running):
  """A run that has ended, and whose score was the higher, the larger the loss."""
  config, experiment, other = running
  worst = dataclasses.replace(experiment, score=lambda metrics: metrics['validation/loss'])
  folder = other.with_name('ended')
  list(train(config, folder, experiment=worst))
  return folder


def contents(folder):
  return {path: path.stat().st_mtime_ns for path in folder.rglob('*')}


@pytest.fixture
def evaluate(programs):
  """Function (*flags) -> the process of `launch.evaluate` that has ended."""
  return lambda *flags: programs.run(['-m', 'launch.evaluate', *flags], os.environ)


def hashes(folder):
  lines = [json.loads(line) for line in (folder / 'metrics.jsonl').read_text().splitlines()]
  return {line['step']: line['state_sha256'] for line in lines if 'state_sha256' in line}


def test_reads_the_state_of_a_run_that_goes_on(running):
  config, experiment, workdir = running
  before = contents(workdir)
  step, state = restore_state(experiment, config, workdir)
  assert (step, tree_sha256(state)) == (10, hashes(workdir)[10])
  assert contents(workdir) == before


def test_a_workdir_alone_gives_the_state_of_any_step(workdir):
  config = saved_config(workdir)
  for wanted, step in ((-1, 20), (20, 20), (10, 10)):
    found, state = restore_state(config.build(), config, workdir, wanted)
    assert (found, int(state.step)) == (step, step)
  assert tree_sha256(restore_state(config.build(), config, workdir, 10)[1]) == hashes(workdir)[10]


def test_best_is_the_step_of_the_best_validation_score(workdir):
  config = saved_config(workdir)
  lines = [json.loads(line) for line in (workdir / 'metrics.jsonl').read_text().splitlines()]
  losses = {line['step']: line['validation/loss'] for line in lines if 'validation/loss' in line}
  assert losses[10] > losses[20]
  assert restore_state(config.build(), config, workdir, best=True)[0] == 10


def test_what_is_not_there_is_named(workdir, tmp_path):
  config = saved_config(workdir)
  with pytest.raises(CheckpointError, match='no checkpoint of step 7; there are steps 10, 20'):
    restore_state(config.build(), config, workdir, 7)
  with pytest.raises(CheckpointError, match='has no checkpoint yet'):
    restore_state(config.build(), config, tmp_path)


def test_numbers_are_those_of_the_run_and_predictions_are_kept(evaluate, workdir, tmp_path):
  before, target = contents(workdir), tmp_path / 'out.npz'
  run = evaluate(f'--workdir={workdir}', '--split=test', f'--predictions={target}')
  assert run.returncode == 0, run.stderr
  printed = dict(line.split() for line in run.stdout.splitlines() if line.startswith('test/'))
  result = json.loads((workdir / 'result.json').read_text())['metrics']
  expected = {name: value for name, value in result.items() if name.startswith('test/')}
  assert {name: float(value) for name, value in printed.items()} == pytest.approx(expected, abs=1e-4)

  saved, examples = np.load(target), saved_config(workdir).build().final_evaluators['test'].examples
  np.testing.assert_array_equal(saved['index'], np.arange(len(examples)))
  np.testing.assert_array_equal(saved['targets'], examples.rows(saved['index'])['targets'])
  accuracy = accuracy_score(saved['targets'], saved['outputs'].ravel() > 0)
  assert accuracy == pytest.approx(expected['test/accuracy'], abs=1e-6)
  assert list(tmp_path.iterdir()) == [target]
  assert contents(workdir) == before


def test_predictions_never_take_the_place_of_a_file(evaluate, workdir, tmp_path):
  target = tmp_path / 'out.npz'
  target.write_text('mine')
  run = evaluate(f'--workdir={workdir}', f'--predictions={target}')
  assert run.returncode == 2 and 'exists already' in run.stderr.splitlines()[-1]
  assert target.read_text() == 'mine'


def test_predictions_that_cannot_be_written_cost_no_number(evaluate, workdir, tmp_path):
  run = evaluate(f'--workdir={workdir}', f'--predictions={tmp_path}/{250 * "x"}')
  assert run.returncode == 74 and 'validation/accuracy' in run.stdout
  assert 'the report saved_to of validation raised OSError: ' in run.stderr.splitlines()[-1]


def test_the_training_part_is_measured_without_augmentation(evaluate, workdir):
  run = evaluate(f'--workdir={workdir}', '--split=train', '--checkpoint=10')
  assert run.returncode == 0, run.stderr
  config = saved_config(workdir)
  experiment = config.build()
  _, state = restore_state(experiment, config, workdir, 10)
  rows = experiment.train.examples.rows(np.arange(len(experiment.train.examples)))
  accuracy = accuracy_score(rows['targets'], np.asarray(experiment.predict(state, rows)).ravel() > 0)
  assert run.stdout.splitlines()[1].split() == ['train/accuracy', f'{accuracy:.4f}']
  assert f'step 10: {len(rows["targets"])} examples of train' in run.stdout


def test_the_data_of_the_other_parts_need_not_be_there(evaluate, tmp_path):
  config = make('stored', folder=str(tmp_path))
  store(tmp_path)
  list(train(config, tmp_path / 'run'))
  for part in ('train', 'validation'):
    (tmp_path / f'{part}.npz').unlink()
  run = evaluate(f'--workdir={tmp_path}/run', '--split=test')
  assert run.returncode == 0, run.stderr
  accuracy = json.loads((tmp_path / 'run' / 'result.json').read_text())['metrics']['test/accuracy']
  assert run.stdout.splitlines()[1].split() == ['test/accuracy', f'{accuracy:.4f}']


@pytest.mark.parametrize(
  ('flag', 'message'),
  [
    ('--split=testing', '--split=testing: must be one of validation, test, train'),
    ('--predictions=nowhere/out.npz', '/nowhere is not a writable folder; create it first'),
    ('--checkpoint=last', 'must be best, latest or a step of'),
  ],
)
def test_mistakes_are_one_line_that_lists_what_there_is(evaluate, workdir, flag, message):
  run = evaluate(f'--workdir={workdir}', flag)
  assert run.returncode == 2
  assert message in run.stderr.splitlines()[-1]
