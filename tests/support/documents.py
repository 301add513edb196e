"""Tables in docs/ whose rows are written and checked by tests.

A test calls the fixture `documented(table, row)` (or `fault`, a special case) with its observation. The row is compared
with the one with the same key in docs/TABLE.md, between two markers; `pytest --write-docs` writes it there. Rows keep
their place; new ones are appended, and may be moved by hand. A row whose test is gone fails in tests/test_docs.py.
"""

import fcntl
import re
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

import absl.app
import pytest

from launch import app
from research.report.tables import BEGIN, END, fill

DOCS = Path(__file__).parents[2] / 'docs'
LOG_PREFIX = r'^[IWEF]\d{4} [^]]*\] '  # of absl: level, time, process and line


def pytest_addoption(parser):
  parser.addoption('--write-docs', action='store_true', help='write the rows of the tables in docs/ instead')


def read(path: Path) -> dict[str, dict[str, str]]:
  """Rows of the table in a file, by the text of their first column; columns by name."""
  return _rows(path.read_text())


def write(path: Path, row: Mapping[str, str]) -> None:
  """Replaces the row with the same key, or appends it; safe for concurrent processes."""
  with path.open('r+') as file:
    fcntl.flock(file, fcntl.LOCK_EX)
    text = file.read()
    rows = _rows(text) | {next(iter(row.values())): row}
    lines = [row.keys(), ['---'] * len(row), *(other.values() for other in rows.values())]
    file.seek(0)
    file.truncate()
    file.write(fill(text, '\n'.join(f'| {" | ".join(map(_escaped, line))} |' for line in lines)))


def _rows(text: str) -> dict[str, dict[str, str]]:
  table = text.partition(BEGIN)[2].partition(END)[0]
  lines = [line[2:-2].split(' | ') for line in table.splitlines() if line]
  heading, _, *rows = [[cell.replace(r'\|', '|') for cell in line] for line in lines] or [(), ()]
  return {row[0]: dict(zip(heading, row, strict=True)) for row in rows}


def _escaped(cell: str) -> str:
  return cell.replace('|', r'\|')


@pytest.fixture
def documented(request) -> Callable[..., None]:
  """Function (table, row, loose=()) that compares `row`, text by column, the key first, with docs/TABLE.md.

  The key must occur in the test's file, as a whole or in parts joined by commas. `loose` names columns with
  machine-dependent values, which are written but not compared.
  """
  test = request.node.nodeid.partition('[')[0]

  def hold(table: str, row: Mapping[str, object], loose: Collection[str] = ()) -> None:
    path = DOCS / f'{table}.md'
    row = {column: str(text) for column, text in row.items()} | {'test': f'`{test}`'}
    if request.config.getoption('--write-docs'):
      write(path, row)
    there = read(path).get(key := next(iter(row.values())))
    assert there, f'docs/{path.name} has no row {key!r}: run this test with --write-docs'
    kept = [column for column in row if column not in loose]
    assert {column: there.get(column) for column in kept} == {column: row[column] for column in kept}

  return hold


@pytest.fixture
def fault(documented, tmp_path) -> Callable[..., None]:
  """Function (name, line, code, kept) that checks a row of docs/faults.md: what a fault prints, its exit code, and
  what is kept. Folders and checksums in the line become `…`.
  """

  def hold(name: str, line: str, code: int, kept: str) -> None:
    general = re.sub(LOG_PREFIX, '', line).replace(str(tmp_path), '…').replace(f'{DOCS.parent}/', '')
    general = re.sub(r'\b[0-9a-f]{64}\b', '…', general)
    reads = f'`{general}`' if line else 'nothing'
    documented('faults', {'fault': name, 'the user reads': reads, 'exit code': code, 'what is kept': kept})

  return hold


@pytest.fixture
def told(monkeypatch, capsys) -> Callable[..., tuple[str, int]]:
  """Function (call) -> the line on standard error and the exit code that a command prints for what `call` raises."""

  def told(call: Callable) -> tuple[str, int]:
    monkeypatch.setattr(absl.app, 'run', lambda main, flags_parser: call())
    with pytest.raises(SystemExit) as stop:
      app.run(call)
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith('error: ')]
    return line, stop.value.code

  return told
