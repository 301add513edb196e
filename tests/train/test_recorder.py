"""What a run writes as it goes: the lines of metrics.jsonl and the events of TensorBoard."""

import dataclasses
import json
import re
import struct
from pathlib import Path

import jax
import pytest
from runs import drain, make
from tensorboardX.proto.event_pb2 import Event
from tensorboardX.proto.plugin_hparams_pb2 import HParamsPluginData

from research.train import board, recorder
from research.train.recorder import Recorder
from research.train.workdir import tree_sha256


def events(folder: Path) -> list[Event]:
  """Events of all files of a folder, in the order of the files (TFRecord: length, its sum, data, their sum)."""
  found = []
  for path in sorted(folder.iterdir()):
    data = path.read_bytes()
    while data:
      (length,) = struct.unpack('Q', data[:8])
      found.append(Event.FromString(data[12 : 12 + length]))
      data = data[16 + length :]
  return found


def test_lines_after_the_checkpoint_are_cut_off(tmp_path):
  with Recorder(tmp_path, 0, 0) as first:
    first.write(1, {'loss': 1.0})
    first.write(2, {'loss': 0.5, 'hash': 'abc'})
    assert first.sync() == 2
    first.write(3, {'loss': 0.25})
  with (tmp_path / 'metrics.jsonl').open('a') as file:
    file.write('{"step": 4, "lo')  # a line that a kill cut short
  with Recorder(tmp_path, 2, 2) as second:
    assert [line['step'] for line in recorder.read(tmp_path)] == [1, 2]
    second.write(3, {'loss': 0.125})
  assert recorder.read(tmp_path) == [
    {'step': 1, 'loss': 1.0},
    {'step': 2, 'loss': 0.5, 'hash': 'abc'},
    {'step': 3, 'loss': 0.125},
  ]


def test_a_line_after_a_damaged_one_is_no_part_of_it(tmp_path):
  (tmp_path / 'metrics.jsonl').write_bytes(b'{"step": 1}\n{"st')
  with Recorder(tmp_path, 2, 2) as board:
    board.write(3, {'loss': 0.5})
    assert board.sync() == 3
  assert recorder.read(tmp_path) == [{'step': 1}, {'step': 3, 'loss': 0.5}]


def test_tensorboard_holds_the_same_numbers(tmp_path):
  from matplotlib.figure import Figure

  with Recorder(tmp_path, 0, 4, {'optimizer.lr': 0.5, 'widths': (3, 4)}) as board:
    board.write(5, {'loss': 0.5, 'hash': 'abc'})
    board.show(5, 'test_note', 'a text')
    figure = Figure(figsize=(1, 1))
    figure.subplots().plot([1, 2])
    board.show(5, 'test_curve', figure)
    board.sync()
    header, start, hparams, config, scalar, text, image = events(tmp_path / 'tensorboard')  # before it is closed
  assert header.file_version == 'brain.Event:2' and start.session_log.status == 1 and start.step == 5
  assert (scalar.step, scalar.summary.value[0].tag, scalar.summary.value[0].simple_value) == (5, 'loss', 0.5)
  (plugin,) = (value.metadata.plugin_data for value in hparams.summary.value)
  fields = HParamsPluginData.FromString(plugin.content).session_start_info.hparams
  assert (plugin.plugin_name, fields['optimizer.lr'].number_value, fields['widths'].string_value) == (
    'hparams',
    0.5,
    '(3, 4)',
  )
  assert config.summary.value[0].tensor.string_val == [b'    optimizer.lr = 0.5\n    widths = (3, 4)']
  assert text.summary.value[0].tensor.string_val == [b'a text']
  assert image.summary.value[0].image.encoded_image_string.startswith(b'\x89PNG')
  assert image.summary.value[0].image.colorspace == 3  # without the canvas's transparency
  assert (tmp_path / 'figures' / 'test_note.txt').read_text() == 'a text'
  assert (tmp_path / 'figures' / 'test_curve.png').read_bytes().startswith(b'\x89PNG')


def test_tensorboard_is_brought_to_the_disk_every_few_seconds(tmp_path, monkeypatch):
  now = [0.0]
  monkeypatch.setattr(board.time, 'monotonic', lambda: now[0])
  with Recorder(tmp_path, 0, 0) as written:
    before = len(events(tmp_path / 'tensorboard'))
    written.write(1, {'loss': 0.5})
    assert len(events(tmp_path / 'tensorboard')) == before
    now[0] += 3
    written.write(2, {'loss': 0.25})
    assert [event.step for event in events(tmp_path / 'tensorboard')[-2:]] == [1, 2]


def test_what_no_report_may_yield_is_told(tmp_path):
  with Recorder(tmp_path, 0, 0) as board, pytest.raises(TypeError, match='test/rows is of type list, but must be a '):
    board.show(1, 'test/rows', [1, 2])


def test_a_damaged_line_of_metrics_is_left_out(tmp_path, fault, caplog):
  (tmp_path / 'metrics.jsonl').write_bytes(
    b'{"step": 1, "a": 2.0}\n{"step": 2, "a\n\xff\n3\n{"step": "4"}\n{"step": 5, "a/b": null}\n{"step": 3}\n'
  )
  assert recorder.read(tmp_path) == [{'step': 1, 'a': 2.0}, {'step': 3}]
  lines = [record.getMessage() for record in caplog.records]
  assert [re.search(r'line (\d+)', line)[1] for line in lines] == ['2', '3', '4', '5', '6']
  fault('a damaged line of metrics.jsonl', lines[0], 0, 'all; it is missing from the learning curves')


def test_hash_lines_are_of_the_states_of_their_steps(tmp_path):
  config = make('classifier', steps=1)
  last = drain(config, tmp_path)[-1].state
  hashes = [line['state_sha256'] for line in recorder.read(tmp_path) if 'state_sha256' in line]
  assert hashes[1] == tree_sha256(last) == json.loads((tmp_path / 'result.json').read_text())['state_sha256']
  moved = last.replace(params=jax.tree.map(lambda leaf: leaf.at[(0,) * leaf.ndim].multiply(1 + 1e-6), last.params))
  assert tree_sha256(moved) != hashes[1] != hashes[0]


def test_a_run_without_evaluators_writes_no_empty_lines(tmp_path):
  config = make('ring', steps=10)
  drain(config, tmp_path, dataclasses.replace(config.build(), evaluators={}, final_evaluators={}))
  assert all(len(line) > 1 for line in recorder.read(tmp_path))
