"""What benchmarks leave: a file of results, and the section of the README that is made of it."""

import importlib
import json
from types import SimpleNamespace

import pytest

from benchmarks import record
from research.evaluate.figures import make_figure


def table(rows):
  return f'| {rows[0]["part"]} |'


@pytest.fixture
def here(tmp_path, monkeypatch):
  for name, path in (('HERE', tmp_path), ('README', tmp_path / 'README.md'), ('RESULTS', tmp_path / 'results')):
    monkeypatch.setattr(record, name, path)
  monkeypatch.setattr(record, 'environment', lambda: ENVIRONMENT)
  (tmp_path / 'README.md').write_text('before\n<!-- starts -->\nold\n<!-- /starts -->\nafter\n')
  return tmp_path


ENVIRONMENT = {'date': '2030-01-02', 'commit': 'abc', 'device': '1 x CPU', 'cores': 2, 'versions': {'jax': '1.2'}}


def test_what_is_recorded_is_the_readme_s_section(here, monkeypatch, capsys):
  monkeypatch.setattr(record.flags, 'FLAGS', SimpleNamespace(record=True))
  record.publish('starts', [{'part': 'imports'}], table, lambda rows: make_figure()[0])
  assert json.loads((here / 'results' / 'starts.json').read_text()) == {**ENVIRONMENT, 'rows': [{'part': 'imports'}]}
  where = '1 x CPU, 2 cores, commit abc, 2030-01-02; jax 1.2.'
  section = f'<!-- starts -->\n| imports |\n\n{where}\n<!-- /starts -->'
  assert (here / 'README.md').read_text() == f'before\n{section}\nafter\n'
  assert (here / 'starts.png').stat().st_size > 1000 and capsys.readouterr().out == '| imports |\n'


def test_without_the_flag_nothing_is_written(here, monkeypatch, capsys):
  monkeypatch.setattr(record.flags, 'FLAGS', SimpleNamespace(record=False))
  record.publish('starts', [{'part': 'imports'}], table)
  assert 'old' in (here / 'README.md').read_text() and not (here / 'results').exists()
  assert capsys.readouterr().out == '| imports |\n'


@pytest.mark.parametrize('name', record.BENCHMARKS)
def test_sections_are_those_of_the_results(name):
  text, path = record.README.read_text(), record.RESULTS / f'{name}.json'
  _, _, rest = text.partition(f'<!-- {name} -->\n')
  section, end, _ = rest.partition(f'<!-- /{name} -->')
  assert end
  table = importlib.import_module(f'benchmarks.{name}').table
  assert section == (f'{record.section(json.loads(path.read_text()), table)}\n' if path.exists() else '')
