"""Drawing from a run: of its workdir alone, the same text for the same seed, and wrong flags told in one line."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from research.data.text import Corpus
from research.errors import ConfigError
from research.parallel.mesh import MeshShape
from research.train.description import load_description
from research.train.experiment import Request
from research.train.loop import train
from research.train.modules import import_file
from research.train.restore import restore_variables
from research.train.workdir import saved_config

ROOT = Path(__file__).resolve().parents[2]
PLAY = 'ROMEO.\nBut soft! what light through yonder window breaks?\n' * 20


@pytest.fixture(scope='module')
def workdir(tmp_path_factory):
  """A run of the tiny language model on a play of two lines."""
  module = import_file(ROOT / 'experiments/lstm_shakespeare/config.py')
  module.shakespeare = lambda: Corpus({'play': PLAY}, {'other': PLAY[:200]}, {'third': PLAY[:300]})
  config, folder = module.get_config('tiny'), tmp_path_factory.mktemp('run')
  config.mesh = MeshShape(1)
  list(train(config, folder))
  return folder


def drawn(workdir: Path, **request) -> str:
  """What the sampler writes, in this process."""
  config = saved_config(workdir)
  key = jax.random.key(request.pop('seed', 0))
  sample = config.sampler(load_description(workdir).fitted)
  ((name, text),) = sample(restore_variables(workdir)[1], key, Request(**request))
  assert name == 'text'
  return text


def test_a_workdir_alone_writes_text(workdir):
  """No data can be had."""
  (workdir / 'notes.txt').write_bytes(b'caf\xe9')  # of the user's, in another encoding
  before = {path: path.stat().st_mtime_ns for path in workdir.rglob('*')}
  nowhere = {'STRATA_CACHE_DIR': os.devnull, 'STRATA_MANUAL_DIR': '/nowhere', 'PIP_NO_INDEX': '1', 'PYTHONPATH': ''}
  words = [f'--workdir={workdir}', '--prompt=ROMEO.', '--length=30', '--temperature=0.5']
  command, environment = [sys.executable, 'launch/sample.py', *words], {**os.environ, **nowhere}
  run = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
  assert run.returncode == 0, run.stderr
  assert run.stdout.startswith('ROMEO.') and len(run.stdout) == len('ROMEO.') + 30 + 1
  assert 'tokens/s' in run.stderr and 'Traceback' not in run.stderr
  assert {path: path.stat().st_mtime_ns for path in workdir.rglob('*')} == before


def test_a_seed_is_a_text_and_the_likeliest_needs_none(workdir):
  one, same, other = (drawn(workdir, prompt='But ', length=40, seed=seed) for seed in (0, 0, 1))
  assert one == same != other and len(one) == 44 and set(one) <= set(PLAY)
  greedy = [drawn(workdir, prompt='But ', length=40, temperature=0.0, seed=seed) for seed in (0, 1)]
  assert greedy[0] == greedy[1] == drawn(workdir, prompt='But ', length=40, temperature=1e-4)
  assert greedy[0] == drawn(workdir, prompt=greedy[0][:20], length=24, temperature=0.0), 'the carry is streamed'


@pytest.mark.parametrize(
  ('flags', 'message'),
  [
    (['--prompt=señor'], "--prompt: the text has characters that are not in the vocabulary: 'ñ'"),
    (['--prompt=But \udcff'], r"--prompt='But \udcff': must be UTF-8; it is not at character 5"),
    (['--prompt=But', '--temperature=-1'], '--temperature=-1.0: must be at least 0'),
    (['--prompt=But', '--input=/nowhere.wav'], '--input=/nowhere.wav: no such readable file'),
    (['--prompt=But', '--checkpoint=first'], '--checkpoint=first: must be best, latest or a step'),
    (['--prompt=But', '--workdir=/nowhere'], 'workdir /nowhere: /nowhere/config.json is missing'),
  ],
)
def test_a_wrong_flag_is_one_line(workdir, flags, message, programs):
  run = programs.run(['-m', 'launch.sample', f'--workdir={workdir}', *flags], os.environ)
  errors = [line for line in run.stderr.splitlines() if line.startswith('error: ')]
  assert run.returncode in (2, 6) and len(errors) == 1 and message in errors[0] and 'Traceback' not in run.stderr


def test_what_was_fitted_is_not_fitted_again(workdir, monkeypatch):
  config, fitted = saved_config(workdir), load_description(workdir).fitted
  module = sys.modules[type(config).__module__]
  monkeypatch.setattr(module, 'shakespeare', lambda: Corpus({'play': PLAY[20:]}, {'other': PLAY}, {'third': PLAY}))
  monkeypatch.setattr(module.text, 'make_tokenizer', None)
  assert config.build(fitted).fitted == fitted


def test_a_text_needs_a_prompt(workdir):
  for request in ({'prompt': ''}, {'prompt': 'But', 'input': 'file.wav'}):
    with pytest.raises(ConfigError, match=r'^--prompt: continues a text and takes no --input'):
      drawn(workdir, **request)
