"""The settings for CPU: that they act, and that they give way to the user's."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from launch import cpu

ROOT = Path(cpu.__file__).parent.parent

# What a step of XLA does to malloc: takes memory, touches all of it and gives it back.
FAULTS = """
import ctypes, resource, sys
from launch import cpu
print(cpu.tune() if sys.argv[1] == 'tuned' else [], file=sys.stderr)
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.free.argtypes, size = ctypes.c_void_p, [ctypes.c_void_p], 5 * 2**26
for turn in range(5):
  if turn == 1: before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
  block = libc.malloc(ctypes.c_size_t(size)); ctypes.memset(block, 1, size); libc.free(block)
print((resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) // 4)
"""


def page_faults(mode):
  """Page faults of one turn."""
  environment = {name: value for name, value in os.environ.items() if not name.startswith(('MALLOC_', 'LD_'))}
  command = [sys.executable, '-c', FAULTS, mode]
  output = subprocess.check_output(command, cwd=ROOT, env={**environment, 'JAX_PLATFORMS': 'cpu'}, text=True)
  return int(output)


@pytest.mark.skipif(sys.platform != 'linux', reason='mallopt is of glibc')
def test_memory_of_a_step_is_kept():
  assert page_faults('plain') > 30  # with huge pages there are few even so
  assert page_faults('tuned') < 10


# How many kernels of YNNPACK and barriers are in a program of one convolution and one product behind a barrier.
KERNELS = """
import re, sys
from launch import cpu
print(cpu.tune() if sys.argv[1] == 'tuned' else [], file=sys.stderr)
import jax, jax.numpy as jnp
images = lambda x, kernel: jax.lax.conv(x, kernel, (1, 1), 'SAME').reshape(8, -1)
program = lambda x, kernel, w: images(x, kernel) @ jax.lax.optimization_barrier(2 * w)
shapes = jnp.ones((8, 1, 16, 16)), jnp.ones((32, 1, 3, 3)), jnp.ones((8192, 64))
text = jax.jit(program).lower(*shapes).compile().as_text()
print(len(re.findall('"kind":"__ynn_fusion"', text)), text.count(' opt-barrier('))
"""


def kernels(mode):
  environment = {name: value for name, value in os.environ.items() if name != 'XLA_FLAGS'}
  command = [sys.executable, '-c', KERNELS, mode]
  return subprocess.check_output(command, cwd=ROOT, env={**environment, 'JAX_PLATFORMS': 'cpu'}, text=True).split()


def test_ynnpack_is_given_no_convolutions_and_barriers_stay():
  assert kernels('plain') == ['2', '0']
  assert kernels('tuned') == ['1', '1']


def test_what_the_user_has_set_stays(monkeypatch):
  monkeypatch.setattr(cpu.ctypes, 'CDLL', None)  # a call would raise
  for name, value in (('MALLOC_ARENA_MAX', '2'), ('LD_PRELOAD', '/lib/libjemalloc.so.2')):
    assert cpu._keep_memory({name: value}) == f'allocator: as {name} says'
  own = {'XLA_FLAGS': f'--{cpu.YNN}=LIBRARY_FUSION_TYPE_REDUCE'}
  assert cpu._no_convolutions(own).endswith('as XLA_FLAGS says')
  assert own == {'XLA_FLAGS': f'--{cpu.YNN}=LIBRARY_FUSION_TYPE_REDUCE'}
  own = {'XLA_FLAGS': f'--{cpu.PASSES}=cse'}
  assert cpu._keep_barriers(own).endswith('as XLA_FLAGS says') and own == {'XLA_FLAGS': f'--{cpu.PASSES}=cse'}


def test_other_flags_of_xla_are_kept():
  environment = {'XLA_FLAGS': '--xla_dump_to=/nowhere'}
  cpu._no_convolutions(environment)
  assert environment['XLA_FLAGS'].split() == [
    '--xla_dump_to=/nowhere',
    f'--{cpu.YNN}=LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT,LIBRARY_FUSION_TYPE_REDUCE',
  ]


@pytest.mark.parametrize('version', ['0.10.1', '0.13.0', '0.13.0.dev20270101', '1.0'])
def test_an_unknown_jaxlib_is_left_alone(version, monkeypatch):
  monkeypatch.setattr(cpu.importlib.metadata, 'version', lambda name: version)
  environment = {}
  assert version in cpu._no_convolutions(environment) and not environment


@pytest.mark.parametrize('version', ['0.10.2', '0.12.0.1'])
def test_a_known_jaxlib_is_not(version, monkeypatch):
  monkeypatch.setattr(cpu.importlib.metadata, 'version', lambda name: version)
  environment = {}
  cpu._no_convolutions(environment)
  assert environment


def test_only_where_the_run_will_be_on_cpu(monkeypatch):
  monkeypatch.setattr(cpu.importlib.util, 'find_spec', lambda name: None)
  assert cpu.runs_on_cpu({}) and cpu.runs_on_cpu({'JAX_PLATFORMS': 'cpu,cuda'})
  assert not cpu.runs_on_cpu({'JAX_PLATFORMS': 'cuda,cpu'})
  monkeypatch.setattr(cpu.importlib.util, 'find_spec', lambda name: name == 'jax_cuda13_plugin' or None)
  assert not cpu.runs_on_cpu({}) and cpu.runs_on_cpu({'JAX_PLATFORMS': 'cpu'})
  monkeypatch.setenv('JAX_PLATFORMS', 'cuda')
  assert cpu.tune() == []


def test_an_accelerator_that_jax_does_not_use_is_told(monkeypatch):
  monkeypatch.delenv('JAX_PLATFORMS', raising=False)
  monkeypatch.setattr(cpu.importlib.util, 'find_spec', lambda name: None)
  assert cpu.idle_accelerator() == ''
  monkeypatch.setattr(cpu.importlib.util, 'find_spec', lambda name: name == 'jax_cuda13_plugin' or None)
  assert cpu.idle_accelerator() == 'jax_cuda13_plugin'
  monkeypatch.setenv('JAX_PLATFORMS', 'cpu')
  assert cpu.idle_accelerator() == ''
