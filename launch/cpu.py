"""Settings that speed up training on CPU: malloc, YNNPACK and optimization barriers.

XLA allocates a step's memory with malloc and frees it afterward. glibc then returns it to the kernel, and the next step
pays for every page again: a third of the time of a small convolutional network.
"""

import ctypes
import importlib.metadata
import importlib.util
import os
import sys
from collections.abc import Mapping, MutableMapping

import jax

YNN = 'xla_cpu_experimental_ynn_fusion_type'
YNN_KINDS = 'LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT,LIBRARY_FUSION_TYPE_REDUCE'
PASSES = 'xla_disable_hlo_passes'
VERSIONS = ((0, 10, 2), (0, 13))  # of jaxlib with these options; XLA aborts on unknown ones
ACCELERATORS = ('jax_cuda12_plugin', 'jax_cuda13_plugin', 'jax_rocm60_plugin', 'jax_rocm7_plugin', 'libtpu')

# mallopt's numbers in malloc.h, each needed: one arena, never mmap, never shrink the heap, grow it by 256 MiB.
MALLOC = {-8: 1, -4: 0, -1: 2**31 - 1, -2: 2**28}


def tune() -> list[str]:
  """Applies all settings, before JAX's first computation; returns log lines, none if JAX will not run on CPU."""
  if not runs_on_cpu(os.environ):
    return []
  return [_keep_memory(os.environ), _no_convolutions(os.environ), _keep_barriers(os.environ)]


def runs_on_cpu(environment: Mapping[str, str]) -> bool:
  """Whether JAX will use the CPU: on request, or because nothing else is installed."""
  if platforms := environment.get('JAX_PLATFORMS', ''):
    return platforms.split(',')[0] == 'cpu'
  return not any(map(importlib.util.find_spec, ACCELERATORS))


def idle_accelerator() -> str:
  """The installed accelerator package if JAX runs on CPU without being asked to; '' for none."""
  if os.environ.get('JAX_PLATFORMS') or jax.default_backend() != 'cpu':
    return ''
  return next(filter(importlib.util.find_spec, ACCELERATORS), '')


def _keep_memory(environment: Mapping[str, str]) -> str:
  own = [name for name in environment if name.startswith('MALLOC_')]
  own += ['GLIBC_TUNABLES'] if 'glibc.malloc' in environment.get('GLIBC_TUNABLES', '') else []
  own += ['LD_PRELOAD'] if 'malloc' in environment.get('LD_PRELOAD', '') else []
  if own:
    return f'allocator: as {own[0]} says'
  libc = ctypes.CDLL(None) if sys.platform == 'linux' else None
  if not hasattr(libc, 'gnu_get_libc_version'):
    return 'allocator: as it is (this is not glibc)'
  done = all(libc.mallopt(name, value) for name, value in MALLOC.items())
  return 'allocator: memory of a step is kept for the next' if done else 'allocator: mallopt refused'


def _no_convolutions(environment: MutableMapping[str, str]) -> str:
  """Lets YNNPACK do products and reductions, but not convolutions, which are slower there."""
  return 'matrix products and sums: ' + _with_flag(environment, YNN, YNN_KINDS, 'by YNNPACK')


def _keep_barriers(environment: MutableMapping[str, str]) -> str:
  """Makes XLA keep optimization barriers until after fusion, so that it does not recompute across them."""
  return 'optimization barriers: ' + _with_flag(environment, PASSES, 'cse_barrier_expander', 'kept')


def _with_flag(environment: MutableMapping[str, str], name: str, value: str, done: str) -> str:
  """Adds a flag to XLA_FLAGS unless `name` is set; returns a line for the log."""
  flags = environment.get('XLA_FLAGS', '')
  if name in flags:
    return 'as XLA_FLAGS says'
  version = importlib.metadata.version('jaxlib')
  least, end = VERSIONS
  if not least <= tuple(int(part) for part in version.split('.')[:3] if part.isdigit()) < end:
    return f'as they are (not tried with jaxlib {version})'
  environment['XLA_FLAGS'] = f'{flags} --{name}={value}'.strip()
  return done
