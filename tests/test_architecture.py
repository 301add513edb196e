"""The rooms of the house: who may import whom, and what the library never pulls in."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
COMMON = {'types', 'metrics', 'random', 'errors', 'paths', 'expected'}
MAY_IMPORT = {
  'ops': set(),
  'models': {'ops'},
  'objectives': {'ops'},
  'tasks': set(),
  'parallel': {'tasks'},
  'data': {'parallel'},
  'evaluate': {'data', 'ops', 'parallel', 'tasks'},
  'train': {'data', 'parallel', 'tasks'},
  'report': {'evaluate', 'train'},
  'sweep': {'evaluate', 'report', 'train'},
}


def imported(path: Path) -> set[str]:
  """What a file imports from the packages of the project, dotted."""
  names = set()
  for node in ast.walk(ast.parse(path.read_text())):
    if isinstance(node, ast.Import):
      names.update(alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
      names.update(f'{node.module}.{alias.name}' for alias in node.names)
  return {name for name in names if name.startswith(('research.', 'experiments.', 'launch.', 'benchmarks.'))}


@pytest.mark.parametrize('room', MAY_IMPORT)
def test_library_imports_run_downward(room):
  allowed = MAY_IMPORT[room] | COMMON | {room}
  for path in (ROOT / 'research' / room).rglob('*.py'):
    for name in imported(path):
      top, below = name.split('.')[:2]
      assert top == 'research' and below in allowed, f'{path.name} imports {name}'


def test_every_room_has_a_rule():
  rooms = {path.parent.name for path in (ROOT / 'research').glob('*/__init__.py')}
  assert rooms == set(MAY_IMPORT)


def test_experiments_know_no_launcher():
  for path in (ROOT / 'experiments').rglob('*.py'):
    assert not [name for name in imported(path) if name.startswith('launch')], path


@pytest.mark.parametrize('room', ['research', 'experiments', 'launch'])
def test_nobody_knows_the_benchmarks(room):
  for path in (ROOT / room).rglob('*.py'):
    assert not [name for name in imported(path) if name.startswith('benchmarks')], path


def test_other_libraries_are_imported_where_they_are_measured_alone():
  for path in (ROOT / 'benchmarks').glob('*.py'):
    found = {node.module if isinstance(node, ast.ImportFrom) else node.names[0].name for node in top_imports(path)}
    peers = {name.split('.')[0] for name in found} & {'torch', 'keras'}
    assert peers <= {path.stem.removesuffix('_peer')}, path


def top_imports(path: Path) -> list[ast.Import | ast.ImportFrom]:
  """The imports that are made as soon as a file is."""
  return [node for node in ast.parse(path.read_text()).body if isinstance(node, (ast.Import, ast.ImportFrom))]


def test_tasks_and_training_know_no_model_or_objective():
  for room in ('tasks', 'train'):
    for path in (ROOT / 'research' / room).rglob('*.py'):
      assert not [name for name in imported(path) if name.split('.')[1] in ('models', 'objectives')], path


def test_library_reads_no_flags():
  for path in (ROOT / 'research').rglob('*.py'):
    assert 'absl import flags' not in path.read_text(), path


def test_library_pulls_in_neither_another_one_nor_what_is_slow_to_import():
  paths = [path for path in (ROOT / 'research').rglob('*.py') if path.name != '__init__.py']
  modules = ['.'.join(path.relative_to(ROOT).with_suffix('').parts) for path in paths]
  heavy = {'tensorflow', 'torch', 'keras', 'scipy', 'sklearn', 'matplotlib', 'pandas'}
  code = f'import sys, {", ".join(modules)}; print([name for name in {heavy} if name in sys.modules])'
  run = subprocess.run([sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True, check=True)
  assert run.stdout.strip() == '[]'
