"""What every launcher does around its work: exit codes, the cache of compiled programs, its streams."""

import contextlib
import errno
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import pytest

from launch import app
from research.errors import ConfigError, WorkdirError
from research.ops.bias import bias_add

ROOT = Path(app.__file__).parent.parent

CONFIG = """
import dataclasses


@dataclasses.dataclass
class Config:
  steps: int = 10
  lr: float = 0.1


def get_config(scale=''):
  return Config()
"""

LAUNCHER = """
'''A toy.'''
import sys
sys.path.insert(0, sys.argv.pop(1))
from launch import app, flags
CONFIG = flags.define_config()
def main():
  print(CONFIG.value.steps, CONFIG.value.lr)
if __name__ == '__main__':
  app.run(main)
"""


@pytest.mark.parametrize(
  ('error', 'code', 'told'),
  [
    (WorkdirError('runs/a is taken'), 6, 'error: runs/a is taken\n'),
    (
      OSError(errno.ENOSPC, 'No space left on device', 'runs/a'),
      74,
      'error: runs/a: No space left on device; free some space there and run the same command again\n',
    ),
    (KeyboardInterrupt(), 130, 'error: interrupted\n'),
  ],
)
def test_exceptions_become_exit_codes(error, code, told, monkeypatch, capsys):
  def fail(main, flags_parser):
    raise error

  monkeypatch.setattr(app.absl.app, 'run', fail)
  with pytest.raises(SystemExit) as stop:
    app.run(lambda: None)
  assert stop.value.code == code and capsys.readouterr().err == told


def test_a_platform_without_a_device(monkeypatch, told, fault):
  def fail(*_):
    raise AssertionError  # as JAX does

  def call():
    with app.needing_devices():
      fail()

  with pytest.raises(AssertionError):  # this machine has devices: it was something else
    call()
  monkeypatch.setattr(app, 'jax', SimpleNamespace(devices=fail, config=SimpleNamespace(jax_platforms='cuda')))
  line, code = told(call)
  assert code == 2 and 'JAX_PLATFORMS=cuda' in line
  fault('a platform without a device', line, code, 'nothing is started')


def test_a_variable_that_jax_cannot_read(fault):
  environment = {**os.environ, 'JAX_NUM_CPU_DEVICES': 'two'}
  program = subprocess.run(
    [sys.executable, '-c', 'import launch'], cwd=ROOT, env=environment, capture_output=True, text=True
  )
  assert program.returncode == 2 and program.stderr.count('\n') == 1
  fault('JAX_NUM_CPU_DEVICES=two', program.stderr.strip(), program.returncode, 'nothing is started')


def test_a_bug_keeps_its_traceback(monkeypatch):
  def fail(main, flags_parser):
    raise ZeroDivisionError

  monkeypatch.setattr(app.absl.app, 'run', fail)
  with pytest.raises(ZeroDivisionError):
    app.run(lambda: None)


@pytest.fixture
def toy(tmp_path):
  """The words that start a launcher with a config of two fields."""
  (tmp_path / 'toy.py').write_text(LAUNCHER)
  (tmp_path / 'config.py').write_text(CONFIG)
  return [str(tmp_path / 'toy.py'), str(ROOT), f'--config={tmp_path}/config.py']


@pytest.fixture
def launch(toy, tmp_path, programs):
  """Function (*words) -> the finished process of the toy."""

  def launch(*words):
    start = 'import runpy, sys; del sys.argv[0]; runpy.run_path(sys.argv[0], run_name="__main__")'
    return programs.run(['-c', start, *toy, *words], {**os.environ, 'XDG_CACHE_HOME': str(tmp_path / 'cache')})

  return launch


def test_a_launcher_from_its_command_line_to_its_exit_code(launch, tmp_path):
  run = launch('--config.lr=3e-4')
  assert (run.returncode, run.stdout, run.stderr) == (0, '10 0.0003\n', '')
  assert (tmp_path / 'cache' / 'strata' / 'xla').is_dir()
  run = launch('--config.lrr=3e-4')
  assert run.returncode == 2 and run.stdout == ''
  assert run.stderr.count('\n') == 1 and run.stderr.startswith('error: config.lrr')


def test_what_is_set_for_the_cpu_is_told_at_verbosity_1(launch):
  run = launch('--verbosity=1')
  assert run.returncode == 0 and 'allocator: ' in run.stderr and 'matrix products and sums: ' in run.stderr


def test_levers_and_cache_can_be_turned_off(launch, tmp_path):
  run = launch('--verbosity=1', '--cpu_levers=false', '--compilation_cache=')
  assert run.returncode == 0 and 'allocator' not in run.stderr
  assert not (tmp_path / 'cache').exists()


def test_kernels_can_be_turned_off(monkeypatch):
  monkeypatch.setattr(app, 'CPU_LEVERS', SimpleNamespace(value=False))
  monkeypatch.setattr(app, 'CACHE', SimpleNamespace(value=''))
  forms = []
  for names in ([], ['bias', 'max_pool'], ['bais']):
    monkeypatch.setattr(app, 'PLAIN', SimpleNamespace(value=names))
    with pytest.raises(ConfigError, match='kernel bais: .* bias') if 'bais' in names else contextlib.nullcontext():
      app._main(lambda: forms.append(str(jax.make_jaxpr(bias_add)(jnp.ones((2, 3)), jnp.ones(3)))))
    flag = [f'--plain_kernels={",".join(names)}'] if names else []
    assert app.machine_flags() == ['--cpu_levers=False', *flag, '--compilation_cache=']
  assert ['platform_index' in form for form in forms] == [True, False]


def test_a_process_without_standard_streams_runs_all_the_same(toy, tmp_path):
  code = """
import os, subprocess, sys
os.close(1), os.close(2)
sys.exit(subprocess.call(sys.argv[1:], close_fds=False))
"""
  script = tmp_path / 'closed.py'
  script.write_text(code)
  command = [sys.executable, str(script), sys.executable, *toy]
  assert subprocess.run(command).returncode == 0
  assert subprocess.run([*command, '--config.stesp=1']).returncode == 2


def test_a_cache_that_cannot_be_written_is_only_a_warning(tmp_path, monkeypatch, caplog):
  (tmp_path / 'file').write_text('')
  warned = []
  monkeypatch.setattr(app.logging, 'warning', lambda *message: warned.append(message))
  monkeypatch.setattr(app.jax.config, 'update', None)  # a call would raise
  app._cache_compilations(tmp_path / 'file' / 'cache')
  assert len(warned) == 1 and 'file' in str(warned[0][1])


def test_neither_a_home_nor_an_encoding_is_needed(toy, tmp_path):
  """By a user without either one, and with outputs that take ASCII alone."""
  nobody = 'import os, pwd, runpy, sys; os.environ.pop("HOME", 0); os.environ.pop("XDG_CACHE_HOME", 0)'
  (tmp_path / 'toy.py').write_text(LAUNCHER.replace('  print(', "  print('µ', "))
  code = f'{nobody}; pwd.getpwuid = {{}}.__getitem__; sys.argv.pop(0); runpy.run_path(sys.argv[0], run_name="__main__")'
  run = subprocess.run(
    [sys.executable, '-c', code, *toy], env={**os.environ, 'PYTHONIOENCODING': 'ascii'}, capture_output=True, text=True
  )
  assert (run.returncode, run.stdout) == (0, '\\xb5 10 0.1\n')
  assert 'no compilation cache: this user has no home directory' in run.stderr


def test_a_script_and_a_module_are_the_same(tmp_path):
  command = [sys.executable, str(ROOT / 'launch' / 'describe.py'), '--config=nowhere.py']
  by_path = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
  command = [sys.executable, '-m', 'launch.describe', '--config=nowhere.py']
  as_module = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
  assert by_path.returncode == as_module.returncode == 2
  assert by_path.stderr == as_module.stderr and 'nowhere.py: no such file' in by_path.stderr


def test_no_launcher_hides_a_module_of_the_standard_library():
  names = {file.stem for file in (ROOT / 'launch').glob('*.py')} - {'__init__'}
  assert names and not names & set(sys.stdlib_module_names)


def test_the_commands_are_listed_without_jax():
  """JAX would refuse the variable."""
  environment = {**os.environ, 'JAX_NUM_CPU_DEVICES': 'two'}
  run = subprocess.run([sys.executable, '-m', 'launch'], cwd=ROOT, env=environment, capture_output=True, text=True)
  assert run.returncode == 0 and not run.stderr
  listed = dict(re.findall(r'^(launch\.\w+) +(.+)$', run.stdout, re.MULTILINE))
  assert listed['launch.train'].startswith('Trains an experiment')
  assert {'launch.evaluate', 'launch.sweep'} < set(listed) and not {'launch.app', 'launch.flags'} & set(listed)
