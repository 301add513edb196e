"""The file results.jsonl: what is written, replaced and refused."""

import json
from pathlib import Path

import pytest

from research.errors import DataError
from research.report import results


def record(seed, fold=None, accuracy=0.9):
  part = {} if fold is None else {'fold': fold}
  empty = dict.fromkeys(('device', 'commit', 'config_sha256'), '') | dict.fromkeys(('versions', 'data'), {})
  metrics, hashes = {'test/accuracy': accuracy}, {'0': 'a', 'end': 'b'}
  return {'seed': seed, **part, **empty, 'metrics': metrics, 'seconds': 1.0, 'state_sha256': hashes}


def test_records_come_back_in_the_order_of_seed_and_fold(tmp_path):
  path = tmp_path / 'results.jsonl'
  assert results.read(path) == []
  records = [record(seed, fold) for seed in (10, 2) for fold in (1, 0)]
  results.add(path, records[:1])
  results.add(path, records[1:])
  assert results.read(path) == sorted(records, key=results.run_of)


def test_a_new_record_replaces_that_of_its_seed_and_fold_alone(tmp_path):
  path = tmp_path / 'results.jsonl'
  results.add(path, [record(0, 0), record(0, 1), record(1)])
  results.add(path, [record(0, 1, accuracy=0.5)])
  assert [line['metrics']['test/accuracy'] for line in results.read(path)] == [0.9, 0.5, 0.9]
  results.add(path, [record(1, 0, accuracy=0.6)])  # a run without cross-validation is fold 0
  assert [line['metrics']['test/accuracy'] for line in results.read(path)] == [0.9, 0.5, 0.6]


def test_variants_are_runs_of_their_own_and_records_without_one_are_the_default(tmp_path):
  path = tmp_path / 'results.jsonl'
  results.add(path, [record(0), record(1) | {'variant': 'small'}])
  results.add(path, [record(0, accuracy=0.5) | {'variant': ''}, record(0) | {'variant': 'small'}])
  records = results.read(path)
  assert [results.run_of(line) for line in records] == [('', 0, 0), ('small', 0, 0), ('small', 1, 0)]
  assert [line['metrics']['test/accuracy'] for line in results.of_variant(records, '')] == [0.5]
  assert results.of_variant(records, 'small') == records[1:]


def test_a_failed_write_leaves_the_file_as_it_was(tmp_path, monkeypatch):
  def write_a_part(path, text):
    path.write_bytes(text[:10].encode())
    raise OSError('no space left')

  path = tmp_path / 'results.jsonl'
  results.add(path, [record(0)])
  monkeypatch.setattr(Path, 'write_text', write_a_part)
  with pytest.raises(OSError, match='no space'):
    results.add(path, [record(1)])
  assert results.read(path) == [record(0)]


@pytest.mark.parametrize(
  ('line', 'message'),
  [('{"seed": 0', 'line 2: is not JSON'), ('[1]', 'line 2: is not an object'), ('{"seed": 1}', 'line 2: lacks commit')],
)
def test_a_damaged_line_is_named(tmp_path, line, message):
  path = tmp_path / 'results.jsonl'
  path.write_text(f'{json.dumps(record(0))}\n{line}\n')
  with pytest.raises(DataError, match=message):
    results.read(path)


@pytest.fixture
def workdir(tmp_path):
  start = {'device': '1 x cpu', 'cores': 2, 'python': '3.11', 'versions': {'jax': '1'}, 'commit': 'c', 'data': {}}
  lines = [{'step': step, 'state_sha256': f'h{step}'} for step in (0, 1, 10)]
  lines += [{'step': step, 'train/loss': 1 / step, 'seconds': 3.0} for step in (5, 10, 20)]
  write(tmp_path / 'config.json', {'file': 'x', 'config': {'seed': 3, 'fold': 1, 'num_folds': 5, 'lr': 0.1}})
  write(tmp_path / 'environment.json', [start | {'commit': 'first'}, start | {'commit': 'older'}, start])
  (tmp_path / 'metrics.jsonl').write_text('\n'.join(map(json.dumps, lines)) + '\n')
  return tmp_path


def write(path, content):
  path.write_text(json.dumps(content))


def test_record_of_an_unfinished_run(workdir):
  found = results.from_workdir(workdir)
  assert (found['seed'], found['fold'], found['device'], found['commit']) == (3, 1, '1 x cpu, 2 cores', 'c')
  assert found['state_sha256'] == {'0': 'h0', '1': 'h1', '10': 'h10'}
  assert found['early'] == {
    '5': {'train/loss': 0.2},
    '10': {'train/loss': 0.1},
  }  # step 20 is past the last hash, and no time belongs to it
  assert 'metrics' not in found


def test_a_run_that_has_saved_no_hash_has_no_beginning_to_compare(workdir):
  (workdir / 'metrics.jsonl').write_text('{"step": 1, "train/loss": 0.5}\n')
  found = results.from_workdir(workdir)
  assert found['early'] == found['state_sha256'] == {}


def test_a_damaged_line_of_metrics_is_named(workdir):
  with (workdir / 'metrics.jsonl').open('ab') as file:
    file.write(b'{"step": 2\xff\n')
  with pytest.raises(DataError, match=r'metrics\.jsonl line 7: is not JSON'):
    results.from_workdir(workdir)


def test_record_of_a_finished_run(workdir):
  write(workdir / 'result.json', {'metrics': {'test/r2': 0.4}, 'steps': 9, 'seconds': 2, 'state_sha256': 'last'})
  found = results.from_workdir(workdir)
  assert set(found) >= results.FIELDS and found['variant'] == ''
  assert results.from_workdir(workdir, 'small') == found | {'variant': 'small'}
  assert found['metrics'] == {'test/r2': 0.4}
  assert found['state_sha256']['end'] == 'last'


def test_the_config_hash_is_the_same_for_every_seed_and_fold_and_for_nothing_else(workdir):
  def hash_of(**changes):
    config = {'seed': 3, 'fold': 1, 'num_folds': 5, 'lr': 0.1}
    write(workdir / 'config.json', {'file': 'x', 'config': config | changes})
    return results.from_workdir(workdir)['config_sha256']

  assert hash_of(seed=4) == hash_of(fold=0) == hash_of()
  assert hash_of(lr=0.2) != hash_of() != hash_of(num_folds=4)
