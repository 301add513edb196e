"""The plan of a sweep: its trials as command lines, checked before any of them runs."""

import shlex
from pathlib import Path

import pytest

from launch.flags import config_file, config_of, load_config
from research.errors import ConfigError
from research.sweep.plan import make_plan

ROOT = Path(__file__).resolve().parents[2]
CONFIG = 'tests/configs/classifier.py'


def plan_of(tmp_path, body):
  path = tmp_path / 'sweep.py'
  path.write_text(f'def sweep():\n  return {body}\n')
  file = str(ROOT / CONFIG)
  return make_plan(file, load_config(file), path, config_of)


@pytest.mark.parametrize(
  ('body', 'told'),
  [
    ("[{'optimizer.lrr': 1e-3}]", ['trial 0-lrr=0.001', 'config.optimizer.lrr', 'nearest: optimizer.lr']),
    ("[{'width': 8}, {'widht': 8}]", ['trial 1-widht=8', 'nearest: width']),
    ("[{'width': 8.5}]", ['trial 0-width=8.5', "config.width='8.5': must be int"]),
    ("[{'width': '8'}]", ["config.width='8': must be int"]),
    ("[{'width': True}]", ['config.width', 'int']),
    ("[{'optimizer.name': 3}]", ['config.optimizer.name=3: must be str']),
    ("[{'optimizer.milestones': 3}]", ['config.optimizer.milestones=3: must be tuple[int, ...]']),
    ("[{'optimizer': {'lr': 1}}]", ['config.optimizer', 'nearest: optimizer.name']),
    ("[{'optimizer.name': 'adamm'}]", ['trial 0-name=adamm', "'adamm': is unknown", 'adam']),
    ("[{'batch_size': 0}]", ['trial 0-batch_size=0', 'must be at least 1']),
    ('[]', ['sweep.py', 'no trials']),
    ('None', ['sweep.py', 'no trials']),
  ],
)
def test_trials_that_no_run_could_use_are_told_in_one_line(body, told, tmp_path):
  with pytest.raises(ConfigError) as error:
    plan_of(tmp_path, body)
  assert all(word in str(error.value) for word in [*told, 'sweep.py']) and '\n' not in str(error.value)


def test_a_file_that_is_no_sweep_is_told(tmp_path):
  file = str(ROOT / CONFIG)
  with pytest.raises(ConfigError, match=r'configs/sweep\.py: no such file'):
    make_plan(file, load_config(file), Path(CONFIG).with_name('sweep.py'), config_of)
  (tmp_path / 'empty.py').write_text('')
  with pytest.raises(ConfigError, match='no function sweep'):
    make_plan(file, load_config(file), tmp_path / 'empty.py', config_of)


def test_the_sweep_beside_the_config_is_taken_at_any_scale():
  file = 'cnn_digits:tiny'
  plan = make_plan(file, load_config(file), config_file(file).with_name('sweep.py'), config_of)
  assert len(plan.trials) == 8 and all(
    command.startswith(f'--config={file}') for command in plan.words(min(plan.trials))[:1]
  )


def test_values_of_any_type_reach_the_config(tmp_path):
  plan = plan_of(tmp_path, "[{'optimizer.milestones': [3, 5], 'optimizer.freeze': ('a b/*',), 'optimizer.lr': 1}]")
  ((name, fields),) = plan.fields.items()
  assert fields == {'optimizer.milestones': (3, 5), 'optimizer.freeze': ('a b/*',), 'optimizer.lr': 1.0}
  assert plan.words(name) == shlex.split(plan.command(name, tmp_path))[3:-1]
