"""The generated tables in docs/: every row is of a test that is there; the tests themselves hold what it says."""

import documents
import pytest

PATHS = [path for path in documents.DOCS.glob('*.md') if documents.BEGIN in path.read_text()]


@pytest.mark.parametrize('path', PATHS, ids=lambda path: path.name)
def test_every_row_has_its_test(path):
  for key, row in documents.read(path).items():
    file, _, name = row['test'].strip('`').partition('::')
    source = (documents.DOCS.parent / file).read_text()
    assert f'def {name}(' in source, f'{path.name}: {key}: its test is gone; delete the row'
    assert all(part in source for part in key.split(', ')), f'{path.name}: {name} has no such row as {key}; delete it'


def test_a_row_is_written_in_its_place_and_read_again(tmp_path):
  path = tmp_path / 'table.md'
  path.write_text('Before.\n<!-- results -->\n<!-- /results -->\nAfter.\n')
  rows = [{'a': 'one', 'b': ''}, {'a': 'two', 'b': 'x | y'}]
  for row in (*rows, {'a': 'one', 'b': '3'}):
    documents.write(path, row)
  assert list(documents.read(path).items()) == [('one', {'a': 'one', 'b': '3'}), ('two', rows[1])]
  assert path.read_text().startswith(
    'Before.\n<!-- results -->\n| a | b |\n| --- | --- |\n| one | 3 |\n| two | x \\| y |\n'
  )
  assert path.read_text().endswith('<!-- /results -->\nAfter.\n')
