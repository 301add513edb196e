"""Signals: whose they are while a run goes on, between its records, and in a notebook."""

import os
import signal
import threading
from pathlib import Path

import jax
import pytest
from jupyter_client.manager import start_new_kernel

from research.train.signals import SIGNALS, Stop

ROOT = Path(__file__).parents[2]


@pytest.fixture
def callers():
  """Signals that the caller has received, by a handler of its own."""
  received = []
  before = {signum: signal.signal(signum, lambda signum, _: received.append(signum)) for signum in SIGNALS}
  yield received
  for signum, handler in before.items():
    signal.signal(signum, handler)


def making(stop: Stop, *signals: int):
  """A run of endless records, in whose second one these signals arrive; what it yields is what it has noted."""
  yield stop.signum
  for signum in signals:
    signal.raise_signal(signum)
  while True:
    yield stop.signum


def test_between_records_signals_are_the_callers(callers):
  stops = [Stop(), Stop()]
  runs = [stop.around(making(stop)) for stop in stops]
  for _ in range(3):
    for run in runs:
      next(run)
      for signum in SIGNALS:
        signal.raise_signal(signum)
  assert callers == 6 * list(SIGNALS) and [stop.signum for stop in stops] == [0, 0]
  runs[0].close()
  signal.raise_signal(signal.SIGINT)
  assert len(callers) == 19


def test_while_a_record_is_made_the_first_signal_is_noted_and_the_second_is_the_callers(callers):
  stop = Stop()
  run = stop.around(making(stop, signal.SIGINT, signal.SIGTERM, signal.SIGINT))
  assert [next(run), next(run)] == [0, signal.SIGINT] and callers == [signal.SIGTERM, signal.SIGINT]


def test_a_run_that_is_given_up_is_closed_at_once():
  run = making(Stop())
  for _ in Stop().around(run):
    break
  assert run.gi_frame is None


def test_a_program_has_its_signals_throughout(callers, monkeypatch):
  ended = []
  monkeypatch.setattr(os, '_exit', ended.append)
  with Stop() as stop:
    signal.raise_signal(signal.SIGTERM)
  assert stop.signum == signal.SIGTERM and not ended and not callers
  with Stop() as stop:
    signal.raise_signal(signal.SIGTERM)
    signal.raise_signal(signal.SIGTERM)
  assert ended == [143]


def test_a_terminal_may_hang_up_twice(callers, monkeypatch):
  """The kernel tells every process of the terminal, and the shell its jobs; neither is in a hurry."""
  ended = []
  monkeypatch.setattr(os, '_exit', ended.append)
  with Stop() as stop:
    for signum in (signal.SIGHUP, signal.SIGHUP, signal.SIGTERM):
      signal.raise_signal(signum)
  assert stop.signum == signal.SIGHUP and not ended
  run = (stop := Stop()).around(making(stop, signal.SIGHUP, signal.SIGHUP))
  assert [next(run), next(run)] == [0, signal.SIGHUP] and not callers


def test_what_is_ignored_stays_ignored(callers):
  signal.signal(signal.SIGHUP, signal.SIG_IGN)
  with Stop() as stop:
    signal.raise_signal(signal.SIGHUP)
  assert stop.signum == 0 and signal.getsignal(signal.SIGHUP) == signal.SIG_IGN


def test_other_threads_leave_signals_alone(callers):
  seen = []

  def hold():
    with Stop() as stop:
      seen.append(signal.getsignal(signal.SIGINT) == stop._handle)

  thread = threading.Thread(target=hold)
  thread.start()
  thread.join()
  assert seen == [False]


class Notebook:
  """A kernel whose cells can be interrupted once they have said that they run."""

  def __init__(self):
    self._manager, self._client = start_new_kernel(cwd=str(ROOT))

  def close(self) -> None:
    self._client.stop_channels()
    self._manager.shutdown_kernel(now=True)

  def run(self, code: str, interrupt: bool = False) -> tuple[str, str]:
    """What a cell printed, and the exception that it ended with; `interrupt` it at its first print."""
    cell, printed, error, state = self._client.execute(code), '', '', ''
    while state != 'idle':
      message = self._client.get_iopub_msg(timeout=60)
      content = message['content'] if message['parent_header'].get('msg_id') == cell else {}
      state, error = content.get('execution_state', state), content.get('ename', error)
      if content.get('name') == 'stdout':
        printed += content['text']
        if interrupt:
          self._manager.interrupt_kernel()
          interrupt = False
    return printed, error


BEGIN = """
import dataclasses, itertools, pathlib, time
import jax
jax.config.update('jax_compilation_cache_dir', {cache!r})
from launch.flags import load_config
from research.train.loop import train

config = dataclasses.replace(load_config('tests/configs/classifier.py'), checkpoint_every=0, eval_every=0)
config.steps = 1_000_000
experiment = config.build()

def wait():
  print('waiting')
  while True:
    time.sleep(0.01)

def saved():
  print(*[path.name for path in pathlib.Path({workdir!r}).glob('checkpoints/[0-9]*')])
"""


@pytest.fixture
def notebook():
  notebook = Notebook()
  yield notebook
  notebook.close()


def test_interrupts_in_a_notebook(notebook, tmp_path):
  """Of a cell that does not train; of one that goes on with a run; of two runs in turns. The kernel outlives them."""
  begin = BEGIN.format(cache=str(jax.config.jax_compilation_cache_dir), workdir=str(tmp_path / 'run'))
  assert notebook.run(begin) == ('', '')
  kept = f'records = train(config, {str(tmp_path / "run")!r}, experiment=experiment)'
  assert notebook.run(f'{kept}\nfor record in itertools.islice(records, 3): pass') == ('', '')
  for _ in range(3):
    assert notebook.run('wait()', interrupt=True) == ('waiting\n', 'KeyboardInterrupt')
  printed, error = notebook.run("print('more')\nfor record in records: pass", interrupt=True)
  assert (printed, error) == ('more\n', 'Interrupted')
  last, saved = notebook.run('print(record.step)\nsaved()')[0].split()
  assert int(saved) >= int(last) > 14
  both = 'both = zip(train(config), train(config))'
  assert notebook.run(f'{both}\nfor _ in itertools.islice(both, 3): pass\ndel both') == ('', '')
  assert notebook.run('wait()', interrupt=True) == ('waiting\n', 'KeyboardInterrupt')
  assert notebook.run('print(6 * 7)') == ('42\n', '')
