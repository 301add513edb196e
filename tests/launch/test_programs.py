"""A program that is forked is as one that is started afresh."""

import os
import signal
import subprocess
import sys

ASKS = """
import json, os, signal, sys, threading
import jax
from jax._src import xla_bridge
asked = {
  'argv': sys.argv,
  'environment': dict(sorted(os.environ.items())),
  'handlers': [str(signal.getsignal(signum)) for signum in range(1, 32)],
  'streams': [os.get_blocking(number) and os.isatty(number) for number in range(3)],
  'files': len(os.listdir('/proc/self/fd')),
  'threads': threading.active_count(),
  'initialized': xla_bridge.backends_are_initialized(),
  'devices': str(jax.devices()),
}
print(json.dumps(asked), flush=True)
if len(sys.argv) > 1:
  signal.pause()
sys.exit(3)
"""


def test_a_forked_program_is_like_a_fresh_one(programs, on_one_device):
  environment = {**on_one_device, 'STRATA_OF_THIS_TEST': 'set'}
  forked = programs.start(['-c', ASKS], environment)
  fresh = subprocess.run([sys.executable, '-c', ASKS], env=environment, capture_output=True, text=True)
  assert forked.communicate(60) == (fresh.stdout, fresh.stderr) and forked.returncode == fresh.returncode == 3
  assert '"initialized": false' in fresh.stdout and '[CpuDevice(id=0)]' in fresh.stdout


def test_a_forked_program_ends_by_its_signal(programs, on_one_device):
  for signum in (signal.SIGTERM, signal.SIGKILL):
    program = programs.start(['-c', ASKS, 'and waits'], on_one_device)
    assert program.stdout.readline() and program.poll() is None and program.pid != os.getpid()
    program.send_signal(signum)
    assert program.wait(60) == program.poll() == -signum
