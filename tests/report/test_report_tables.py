"""Tables of the READMEs: numbers by hand, and those that are committed."""

import pytest

from research.report import readmes
from research.report.agreement import Target
from research.report.results import recorded
from research.report.tables import BEGIN, END, Entry, experiment_table, fill, overview_table

TARGET = Target('test/accuracy', at_least=0.9, margin=0.1)
LOSS = Target('test/loss', at_most=200.0)


def record(seed, accuracy, **fields):
  metrics = {'validation/accuracy': 1.0, 'test/loss': 123.456, 'test/accuracy': accuracy}
  return {'seed': seed, **fields, 'metrics': metrics, 'seconds': 60.0 + 60 * seed, 'device': 'd', 'commit': 'c'}


def cells(line):
  return [cell.strip() for cell in line.strip('|').split('|')]


def test_experiment_table():
  table = experiment_table([record(0, 0.90), record(1, 0.94)], [TARGET]).splitlines()
  assert cells(table[2]) == ['accuracy', '0.9200 ± 0.0283', '0.9000', '0.9400', '0.9000']
  assert cells(table[3]) == ['loss', '123.5 ± 0.0000', '123.5', '123.5', '']
  assert table[4:] == ['', '2 runs (seeds 0, 1), 90 s each on d, commit c.']
  assert len({len(line) for line in table[:4]}) == 1


def test_deviation_of_a_cross_validation_is_over_the_seeds():
  records = [record(seed, 0.9 + seed / 100 + fold / 10, fold=fold) for seed in (0, 1) for fold in (0, 1)]
  table = experiment_table(records, [TARGET]).splitlines()
  assert cells(table[2])[1] == '0.9550 ± 0.0071'
  assert '4 runs (seeds 0, 1; 2 folds, averaged for each seed)' in table[-1]


def test_a_metric_of_one_fold_alone_is_told_of_that_fold():
  records = [record(seed, 0.9, fold=fold) for seed in (0, 1) for fold in (0, 1)]
  for number, one in enumerate(records):
    if one['fold']:
      one['metrics']['test/accuracy_ann'] = 0.5 + number / 10
  table = experiment_table(records, [TARGET]).splitlines()
  assert cells(table[4])[:4] == ['accuracy ann', '0.7000 ± 0.1414', '0.6000', '0.8000']


def test_a_row_for_each_variant_follows_the_default():
  records = [record(0, 0.90), record(1, 0.94), record(0, 0.5, variant='small'), record(3, 0.7, variant='large')]
  del records[3]['metrics']['test/loss']
  table = experiment_table(records, [TARGET, LOSS]).splitlines()
  assert table[:6] == experiment_table(records[:2], [TARGET, LOSS]).splitlines()
  assert [cells(line)[-1] for line in table[2:4]] == ['0.9000', '200']
  assert [cells(line) for line in (table[7], *table[9:])] == [
    ['variant', 'accuracy', 'loss', 'runs', 'time per run', 'commit'],
    ['default', '0.9200 ± 0.0283', '123.5 ± 0.0000', '2', '90 s', 'c'],
    ['large', '0.7000', '', '1', '4.0 min', 'c'],
    ['small', '0.5000', '123.5', '1', '60 s', 'c'],
  ]


def test_variants_can_be_recorded_before_the_default():
  table = experiment_table([record(0, 0.5, variant='small')], [TARGET]).splitlines()
  assert [cells(line)[:2] for line in table[2:]] == [['small', '0.5000']]


def test_overview_table():
  table = overview_table(
    [Entry('one', 'a thing', [TARGET, LOSS], [record(1, 0.9), record(1, 0.7, variant='small')])]
  ).splitlines()
  link = '[one](experiments/one/README.md)'
  assert cells(table[2]) == [link, 'a thing', 'accuracy', '0.9000', '0.9000', '1', '2.0 min']


def test_fill_changes_nothing_but_what_is_between_the_markers():
  text = f'before\n{BEGIN}\nold\n{END}\nafter\n'
  assert fill(text, 'new') == f'before\n{BEGIN}\nnew\n{END}\nafter\n'
  assert fill(fill(text, 'new'), 'new') == fill(text, 'new')


@pytest.mark.parametrize('text', ['no markers', f'{BEGIN} but no end', f'{END} before {BEGIN}'])
def test_fill_leaves_a_text_without_markers_alone(text):
  assert fill(text, 'new') == text


def test_committed_tables_are_those_of_the_results_files():
  folders = recorded()
  if not folders:
    pytest.skip('nothing is on record yet')
  for path, text in readmes.updated(folders).items():
    assert path.read_text() == text, f'{path}: write it by python -m launch.tables'
