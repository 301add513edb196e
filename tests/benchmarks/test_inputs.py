"""Input pipelines: every reader brings the same examples, and a set on disk stays there."""

import importlib.util
import itertools
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks import inputs
from research.data.examples import Arrays
from research.data.source import Source
from research.errors import DataError


@pytest.fixture
def stored(tmp_path):
  inputs.make_images(tmp_path / 'images', 24 * 64 * 64 * 3 / 1e9)
  return Source(inputs.Stored(tmp_path / 'images'), 8)


def memory():
  return Source(Arrays({'inputs': np.arange(24, dtype=np.int32)[:, None] * np.ones(5, np.int32)}), 8)


@pytest.mark.parametrize('reader', inputs.READERS)
@pytest.mark.parametrize('where', ['memory', 'disk'])
def test_an_epoch_has_every_example_once(where, reader, stored):
  if reader.startswith('torch'):
    pytest.importorskip('torch', reason='of the extra `peers`')
  source = memory() if where == 'memory' else stored
  batches = [np.asarray(rows['inputs']) for rows in itertools.islice(inputs.READERS[reader](source), 3)]
  assert {len(batch) for batch in batches} == {8}
  everything = source.examples.rows(np.arange(24))['inputs']
  read = np.concatenate(batches).reshape(24, -1)
  np.testing.assert_array_equal(np.unique(read, axis=0), np.unique(everything.reshape(24, -1), axis=0))
  assert not (read == everything.reshape(24, -1)).all()


@pytest.mark.skipif(sys.platform != 'linux', reason='of the file system /proc')
def test_images_on_disk_are_mapped_for_a_batch_alone(stored):
  rows = stored.examples.rows(np.array([3, 1]))['inputs']
  data = np.frombuffer(stored.examples.path.read_bytes(), np.uint8).reshape(24, 64, 64, 3)
  np.testing.assert_array_equal(rows, data[[3, 1]])
  assert str(stored.examples.path) not in Path('/proc/self/maps').read_text()


def test_what_cannot_be_had_is_left_out(in_process, monkeypatch, capsys):
  def missing():
    raise DataError('mnist: cannot be fetched')

  monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None)
  in_process(inputs)
  assert inputs.readers() == ['ours', 'numpy']
  rows = list(inputs.measured({'mnist': missing, 'memory': memory}, inputs.readers()[1:], rounds=2, seconds=0.01))
  assert capsys.readouterr().out.splitlines()[-1] == 'mnist is left out: mnist: cannot be fetched'
  (row,) = rows
  assert (row['set'], row['reader'], row['bytes_per_example']) == ('memory', 'numpy', 20)
  least, most = row['spread']
  assert 0 < least <= row['examples_per_second'] <= most and row['peak_bytes'] >= row['first_bytes'] > 1e7
  known = {**row, 'examples_per_second': 1e6, 'spread': [5e5, 2e6], 'first_bytes': 1e8, 'peak_bytes': 2e8}
  last = inputs.table([known]).splitlines()[-1]
  assert last.replace('|', ' ').split() == ['memory', 'numpy', '1,000,000', '500,000', '2,000,000', '20', '100', '200']
