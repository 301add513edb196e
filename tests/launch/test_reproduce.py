"""Running an experiment again: a tiny cross-validation, put on record once and then compared with."""

import dataclasses
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from absl import flags
from absl.testing import flagsaver

from launch import reproduce
from research import paths
from research.errors import ConfigError, RunError, WorkdirError
from research.report import readmes, results
from research.report.tables import BEGIN, END
from research.train import environment, rerun

ROOT = Path(__file__).resolve().parents[2]
CONFIG = '''"""A tiny thing: for tests."""

import dataclasses

from experiments.mlp_breast_cancer import config
from research.report.agreement import Target

TARGETS = (Target('test/accuracy', at_least=0.3, margin=0.05, examples=0),)
VARIANTS = ('wide',)


def get_config(name=''):
  fields = {'num_folds': 2, 'steps': 130, 'eval_every': 0, 'checkpoint_every': 0}
  if name == 'wide':
    fields |= {'hidden_sizes': (16,), 'steps': 10}
  return dataclasses.replace(config.get_config('tiny'), **fields)
'''


OTHER = {'experiments/wiring.py': 'another'}


def launch(folder, root, **options):
  """What the launcher does with these flags; the seed is 0 unless given."""
  options = {'experiment': str(folder), 'root': root, 'seeds': ['0'], **options}
  with flagsaver.flagsaver(**options):
    reproduce.main()


check_committed = reproduce.check_committed


@pytest.fixture(scope='module', autouse=True)
def committed():
  """Whoever works on the code can run these tests before a commit."""
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(reproduce, 'check_committed', lambda folders: None)
    yield


@pytest.fixture(scope='module')
def on_record(tmp_path_factory):
  """A folder with two folds of seed 0 on record, and the root of their workdirs."""
  folder, root = tmp_path_factory.mktemp('experiments') / 'tiny', tmp_path_factory.mktemp('runs')
  folder.mkdir()
  (folder / 'config.py').write_text(CONFIG)
  (folder / 'README.md').write_text(f'# Tiny\n{BEGIN}\n{END}\n')
  launch(folder, root, record=True)
  return folder, root


@pytest.fixture
def again(on_record, tmp_path, monkeypatch):
  """A copy of that folder, whose runs are taken to have been run again with the same outcome."""
  folder, root = on_record
  shutil.copytree(folder, tmp_path / 'tiny')
  monkeypatch.setattr(reproduce, 'run', lambda config, _: root / 'tiny' / f'seed{config.seed}_fold{config.fold}')
  return tmp_path / 'tiny'


def tamper(folder, change):
  path = folder / 'results.jsonl'
  records = results.read(path)
  for record in records:
    change(record)
  path.write_text(''.join(json.dumps(record) + '\n' for record in records))


def test_records_every_fold_and_writes_the_table(on_record):
  folder, root = on_record
  records = results.read(folder / 'results.jsonl')
  assert [results.run_of(record) for record in records] == [('', 0, 0), ('', 0, 1)]
  for record in records:
    result = json.loads((root / 'tiny' / f'seed0_fold{record["fold"]}' / 'result.json').read_text())
    assert (record['metrics'], record['state_sha256']['end']) == (result['metrics'], result['state_sha256'])
    assert record['state_sha256'].keys() == {'0', '1', '10', '100', 'end'}
  assert len(list((root / 'tiny').glob('*/figures/learning_curves.png'))) == 2
  assert '2 runs (seeds 0; 2 folds' in (folder / 'README.md').read_text()


def test_a_variant_has_runs_and_a_row_of_its_own_and_no_target(again, tmp_path, monkeypatch, capsys):
  monkeypatch.undo()
  (again / 'config.py').write_text(CONFIG.replace('at_least=0.3', 'at_least=1.0'))
  before = results.read(again / 'results.jsonl')
  launch(again, tmp_path / 'runs', variant='wide', record=True)
  records = results.read(again / 'results.jsonl')
  assert records[: len(before)] == before
  assert [results.run_of(record) for record in records[len(before) :]] == [('wide', 0, 0), ('wide', 0, 1)]
  assert json.loads((tmp_path / 'runs/tiny/wide/seed0_fold0/config.json').read_text())['config']['hidden_sizes'] == [16]
  assert [line.split()[1] for line in (again / 'README.md').read_text().splitlines() if 'wide' in line] == ['wide']
  monkeypatch.setattr(reproduce, 'run', lambda config, root: root / f'seed0_fold{config.fold}')
  launch(again, tmp_path / 'runs', variant='wide')
  assert capsys.readouterr().out.count('bitwise') == 2


def test_a_run_of_two_codes_is_not_put_on_record(on_record, again, monkeypatch):
  shutil.copytree(on_record[1], again.parent / 'runs')
  monkeypatch.setattr(reproduce, 'run', lambda config, _: again.parent / 'runs' / 'tiny' / f'seed0_fold{config.fold}')
  path, before = (
    again.parent / 'runs' / 'tiny' / 'seed0_fold1' / 'environment.json',
    results.read(again / 'results.jsonl'),
  )
  (start,) = json.loads(path.read_text())
  path.write_text(json.dumps([start, {**start, 'step': 100, 'versions': {**start['versions'], 'jax': '0'}}]))
  with pytest.raises(WorkdirError, match=r'seed0_fold1: code or versions changed at step 100 \(jax .* -> 0\)'):
    launch(again, again, record=True)
  assert results.read(again / 'results.jsonl') == before


def test_a_second_run_is_bitwise_the_same(on_record, tmp_path, capsys):
  launch(on_record[0], tmp_path)
  out = capsys.readouterr().out
  assert out.count('bitwise') == 2, out
  assert 'differs from the record' not in out


def test_quick_stops_after_the_beginning(on_record, tmp_path, capsys):
  launch(on_record[0], tmp_path, quick=True)
  (workdir,) = (tmp_path / 'tiny').iterdir()
  assert not (workdir / 'result.json').exists()
  assert results.from_workdir(workdir)['state_sha256'].keys() == {'0', '1', '10', '100'}
  out = capsys.readouterr().out
  assert 'bitwise' in out and 'not run to the end' in out


def test_a_tampered_hash_is_located(again, capsys):
  tamper(again, lambda record: record['state_sha256'].update({'10': 'x'}))
  launch(again, again)
  out = capsys.readouterr().out
  assert out.count('numerical') == 2 and '| 10 ' in out and 'bitwise' not in out


def test_another_number_is_refused_once_it_is_outside_the_margin(again, capsys):
  def change(record, by):
    record['metrics']['test/accuracy'] += by
    record['state_sha256']['end'] = 'x'

  tamper(again, lambda record: change(record, by=0.04))
  launch(again, again)
  assert capsys.readouterr().out.count('statistical') == 2
  tamper(again, lambda record: change(record, by=0.02))
  with pytest.raises(RunError, match='tiny: seed 0 agrees with the record at no level'):
    launch(again, again)


def test_a_mean_below_what_is_to_be_reached_is_a_fault(again):
  (again / 'config.py').write_text(CONFIG.replace('at_least=0.3', 'at_least=0.999'))
  with pytest.raises(RunError, match='tiny: test/accuracy is 0.* on average, below 0.999') as error:
    launch(again, again)
  assert error.value.exit_code == 1


def test_another_environment_is_listed(again, capsys):
  tamper(again, lambda record: record.update(commit='older'))
  launch(again, again)
  assert 'differs from the record: commit: older -> ' in capsys.readouterr().out


def test_all_runs_those_that_have_records(again, monkeypatch, capsys):
  home = again.parent / 'experiments'
  for name in ('first', 'second', 'unrecorded'):
    shutil.copytree(again, home / name)
  (home / 'unrecorded' / 'results.jsonl').unlink()
  monkeypatch.setattr(paths, 'ROOT', again.parent)
  launch('', again, all=True)
  out = capsys.readouterr().out.splitlines()
  assert [line for line in out if '|' not in line] == ['first', 'second']


def test_all_of_nothing_is_a_mistake(again, monkeypatch):
  monkeypatch.setattr(paths, 'ROOT', again.parent)
  with pytest.raises(ConfigError, match='--all: no experiment has recorded runs'):
    launch('', again, all=True)


def test_a_folder_elsewhere_leaves_the_projects_readme_alone(again, monkeypatch):
  (again.parent / 'README.md').write_text(f'{BEGIN}{END}')
  for module in (paths, readmes):
    monkeypatch.setattr(module, 'ROOT', again.parent)
  assert readmes.update([again]) == [again / 'README.md']


def test_readmes_of_an_experiment_and_of_the_project(again, monkeypatch):
  home = again.parent / 'experiments' / 'first'
  shutil.copytree(again, home)
  (again.parent / 'README.md').write_text(f'{BEGIN}{END}')
  for module in (paths, readmes):
    monkeypatch.setattr(module, 'ROOT', again.parent)
  assert readmes.update(results.recorded()) == [home / 'README.md', again.parent / 'README.md']
  assert '[first](experiments/first/README.md) | A tiny thing |' in (again.parent / 'README.md').read_text()


def test_an_experiment_is_found_by_name_and_by_path(monkeypatch):
  folder = ROOT / 'experiments' / 'cnn_digits'
  monkeypatch.chdir(ROOT)
  assert [reproduce.folder_of(name) for name in ('cnn_digits', 'experiments/cnn_digits/', str(folder))] == [folder] * 3


@pytest.mark.parametrize(
  ('options', 'message'),
  [
    ({'experiment': 'cnn_digit'}, 'is unknown; nearest: cnn_digits'),
    ({'experiment': 'gs://bucket/digits'}, 'experiment=gs://bucket/digits: is an address'),
    ({'experiment': ''}, '--experiment=NAME is missing; there are: cnn_digits, '),
    ({'quick': True, 'seeds': ['0', '7']}, 'has no seed 7'),
    ({'variant': 'wid', 'record': True}, 'variant=wid: is unknown; nearest: wide'),
    ({'variant': 'wide'}, 'results.jsonl has no runs of variant wide to compare with'),
  ],
)
def test_mistakes_are_told_before_anything_runs(again, options, message):
  with pytest.raises(ConfigError, match=message):
    launch(again, again, **options)


def test_without_records_there_is_nothing_to_compare_with(again):
  (again / 'results.jsonl').unlink()
  with pytest.raises(ConfigError, match='record some with --record'):
    launch(again, again)


def test_an_experiment_without_a_target_is_told_before_anything_runs(again):
  (again / 'config.py').write_text(CONFIG.replace('TARGETS', 'GOALS'))
  with pytest.raises(ConfigError, match='has no TARGETS'):
    launch(again, again, record=True)


@pytest.mark.parametrize(
  'options', [{'seeds': ['one']}, {'seeds': []}, {'quick': True, 'record': True}, {'all': True, 'variant': 'wide'}]
)
def test_flags_that_make_no_sense(options):
  with pytest.raises(flags.IllegalFlagValueError), flagsaver.flagsaver(**options):
    pass


@pytest.mark.parametrize('command', [['launch/reproduce.py'], ['-m', 'launch.reproduce']])
def test_a_mistake_is_one_line_and_exit_code_2(command):
  environment = {**os.environ, 'PYTHONPATH': ''}
  run = subprocess.run(
    [sys.executable, *command, '--experiment=x'], cwd=ROOT, env=environment, capture_output=True, text=True
  )
  assert run.returncode == 2
  assert [line for line in run.stderr.splitlines() if line.startswith('error')] == run.stderr.splitlines()[-1:]
  assert 'Traceback' not in run.stderr


@pytest.fixture
def clone(again, monkeypatch):
  """A repository with one commit that holds the experiment; function that runs git in it."""
  root = again.parent / 'clone'
  shutil.copytree(again, root / 'experiments' / 'tiny')
  for module in (reproduce, environment):
    monkeypatch.setattr(module, 'ROOT', root)

  def git(*command):
    subprocess.run(['git', '-C', root, '-c', 'user.name=n', '-c', 'user.email=e', *command], check=True)

  git('init', '--quiet')
  (root / 'README.md').write_text('')
  git('add', '.')
  git('commit', '--quiet', '--message=First')
  return root / 'experiments' / 'tiny', git


def test_a_record_may_only_name_a_commit_that_holds_its_code(clone):
  folder, git = clone
  for name in ('results.jsonl', 'README.md', 'new.png', '../../README.md'):
    (folder / name).write_text('changed')
  check_committed([folder])
  for name in ('config.py', 'notes.txt', '../other/results.jsonl', '../../tests.py'):
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    before = path.read_text() if path.exists() else ''
    path.write_text('changed')
    with pytest.raises(ConfigError, match=f'--record: {path.resolve().relative_to(reproduce.ROOT)} is not committed'):
      check_committed([folder])
    path.write_text(before) if before else path.unlink()
  (folder.parent / 'other' / 'results.jsonl').write_text('changed')
  check_committed([folder, folder.parent / 'other'])  # which are recorded together


def test_code_that_is_not_committed_is_told(clone, told, fault):
  folder, _ = clone
  (folder / 'config.py').write_text('changed')
  line, code = told(lambda: check_committed([folder]))
  fault('--record with changed code', line, code, 'nothing is started')


def test_a_record_may_only_name_a_commit_that_git_keeps(clone):
  folder, git = clone
  git('switch', '--quiet', '--detach')
  check_committed([folder])
  git('commit', '--quiet', '--allow-empty', '--message=Second')
  with pytest.raises(ConfigError, match='is on no branch and could be lost'):
    check_committed([folder])
  git('tag', 'kept')
  check_committed([folder])
  shutil.rmtree(reproduce.ROOT / '.git')
  with pytest.raises(ConfigError, match='is not a git checkout'):
    check_committed([folder])


@pytest.fixture
def known(again, monkeypatch):
  """A finished run whose commit is known; function that finds the workdir for a config at an environment."""
  root, config = again.parent / 'copy', reproduce.folds_of(reproduce.import_file(again / 'config.py').get_config(), 0)
  shutil.copytree(reproduce.run(config[0], None), root / 'seed0_fold0')
  path = root / 'seed0_fold0' / 'environment.json'
  start = json.loads(path.read_text())[-1] | {'commit': 'abc'}
  path.write_text(json.dumps([start]))

  def find(config=config[0], **changes):
    monkeypatch.setattr(rerun, 'environment', lambda config: start | changes)
    return rerun.workdir_for(root, config).name

  return find, config, root / 'seed0_fold0'


def test_a_finished_run_of_the_same_code_and_machine_is_not_run_again(known):
  find, config, _ = known
  assert find() == 'seed0_fold0'
  assert find(time='later', command=['other']) == 'seed0_fold0'
  assert find(config[1]) == 'seed0_fold1'


def test_whatever_differs_is_run_in_a_fresh_workdir(known):
  find, config, workdir = known
  for changes in (
    {'commit': 'abd'},
    {'versions': {}},
    {'device': '8 x gpu'},
    {'cores': 64},
    {'python': '4'},
    {'code': OTHER},
  ):
    assert find(**changes) == 'seed0_fold0-2', changes
  assert find(dataclasses.replace(config[0], dropout_rate=0.9)) == 'seed0_fold0-2'
  shutil.copytree(workdir, workdir.with_name('seed0_fold0-2'))
  assert find(commit='abd') == 'seed0_fold0-3'


@pytest.mark.parametrize('commit', ['', 'abc-dirty'])
def test_code_that_is_not_committed_is_run_again_but_an_interrupted_run_goes_on(known, commit):
  find, _, workdir = known
  path = workdir / 'environment.json'
  path.write_text(path.read_text().replace('"abc"', f'"{commit}"'))
  assert find(commit=commit) == 'seed0_fold0-2'
  (workdir / 'result.json').unlink()
  assert find(commit=commit) == 'seed0_fold0'


def test_a_folder_that_is_no_run_is_left_alone(known):
  find, _, workdir = known
  for name in ('config.json', 'environment.json'):
    (workdir / name).unlink()
    assert find() == 'seed0_fold0-2'
