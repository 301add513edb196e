"""Runs side by side: read back from the figure's axes and from the table."""

import dataclasses

import pytest
from absl import flags as absl_flags
from absl.testing import flagsaver
from runs import claim, make

from launch import app, compare
from research.errors import ConfigError, WorkdirError
from research.report.compare import History, compared_curves, differences_table, read_runs
from research.train.optimizer import Optimizer
from research.train.recorder import Recorder


@pytest.fixture
def workdirs(tmp_path):
  """Two runs that differ in a field of their own and in one of the optimizer, the second without validation."""
  config = make('classifier', steps=20)
  wide = dataclasses.replace(config, width=64, optimizer=Optimizer(lr=0.01))
  for name, own, losses in (('plain', config, (2.0, 1.0)), ('wide', wide, (3.0, 0.5))):
    claim(tmp_path / name, own)
    with Recorder(tmp_path / name, 0, 0) as recorder:
      for step, loss in zip((10, 20), losses, strict=True):
        recorder.write(step, {'train/loss': loss})
      if name == 'plain':
        recorder.write(20, {'validation/loss': 1.5})
  return [tmp_path / 'plain', tmp_path / 'wide']


def test_differences_are_a_table(workdirs):
  rows = [
    [cell.strip() for cell in line.split('|')[1:-1]] for line in differences_table(read_runs(workdirs)).splitlines()
  ]
  assert [rows[0], *rows[2:]] == [
    ['', 'plain', 'wide'],
    ['optimizer.lr', '0.001', '0.01'],
    ['width', '32', '64'],
    ['validation/loss', '1.5', ''],
  ]


def test_every_run_has_a_color_and_every_part_a_line(workdirs):
  figure = compared_curves(read_runs(workdirs))
  (axis,) = figure.axes
  drawn = [
    (line.get_color(), list(line.get_xdata()), list(line.get_ydata())) for line in axis.lines if len(line.get_xdata())
  ]
  first, second = drawn[0][0], drawn[-1][0]
  assert drawn == [(first, [10, 20], [2, 1]), (first, [20], [1.5]), (second, [10, 20], [3, 0.5])] and first != second
  assert axis.get_ylabel() == 'loss' and axis.get_xlabel() == 'step'
  assert [text.get_text() for text in figure.legends[0].get_texts()] == ['plain', 'wide', 'validation', 'train']


def test_names_are_as_long_as_it_takes(tmp_path):
  for name in ('a/seed0', 'b/seed0'):
    claim(tmp_path / name, make('classifier'))
    (tmp_path / name / 'metrics.jsonl').write_text('')
  runs = read_runs([tmp_path / 'a' / 'seed0', tmp_path / 'b' / 'seed0'])
  assert list(runs) == ['a/seed0', 'b/seed0']
  with pytest.raises(WorkdirError, match='given twice'):
    read_runs([tmp_path / 'a' / 'seed0', tmp_path / 'a' / 'seed0'])
  with pytest.raises(WorkdirError, match='no run'):
    read_runs([tmp_path / 'a' / 'seed0', tmp_path])


def test_the_command_takes_workdirs_as_words(workdirs, tmp_path, monkeypatch, capsys):
  monkeypatch.chdir(tmp_path)
  with flagsaver.flagsaver(output=tmp_path / 'both.png'):
    compare.main('plain', 'wide')
  assert (tmp_path / 'both.png').read_bytes().startswith(b'\x89PNG')
  assert 'optimizer.lr' in capsys.readouterr().out
  with pytest.raises(ConfigError, match='two runs or more'):
    compare.main('plain')
  seen = []
  monkeypatch.setattr(absl_flags, 'FLAGS', own := absl_flags.FlagValues())  # without those of other commands
  absl_flags.DEFINE_string('output', '', 'as in the command', own)
  monkeypatch.setattr(app.sys, 'argv', ['compare', 'plain', '--output=x.png', 'wide'])
  monkeypatch.setattr(app, '_main', lambda main: seen.append(main.args))
  with pytest.raises(SystemExit), flagsaver.flagsaver():  # starting a command raises the verbosity
    app.run(compare.main, compare.PARSER)
  assert seen == [('plain', 'wide')]


def test_runs_that_have_logged_nothing_yet_cannot_be_compared():
  nothing = {name: History({}, [{'step': 0, 'state_sha256': ''}]) for name in ('a', 'b')}
  with pytest.raises(WorkdirError, match='a, b: no training metrics are logged yet'):
    compared_curves(nothing)
