"""What, besides the config, the numbers of a run depend on: code, versions and machine."""

import contextlib
import importlib.metadata
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import jax

from research.train.modules import ROOT

PACKAGES = ('jax', 'jaxlib', 'flax', 'optax', 'orbax-checkpoint', 'numpy')


def environment() -> dict[str, Any]:
  """All of it, for environment.json."""
  return {
    'time': time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime()),
    'command': sys.argv,
    'commit': _commit(),
    'python': sys.version.split()[0],
    'versions': {name: importlib.metadata.version(name) for name in PACKAGES},
    'device': _device(),
    'cores': len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count(),
  }


def _commit() -> str:
  """Commit of the code; '-dirty' after it where code is not committed (results and texts may well be new)."""
  with contextlib.suppress(OSError, subprocess.CalledProcessError):
    commit = _git('rev-parse', '--short=12', 'HEAD')
    return commit + ('-dirty' if _git('status', '--porcelain', '--', '*.py', '*.cfg', '*.toml') else '')
  return ''


def _git(*command: str) -> str:
  return subprocess.run(['git', '-C', str(ROOT), *command], capture_output=True, text=True, check=True).stdout.strip()


def _device() -> str:
  """Number and kind of the devices; JAX calls every processor `cpu`."""
  kind, cpuinfo = jax.devices()[0].device_kind, Path('/proc/cpuinfo')
  if kind == 'cpu' and cpuinfo.exists():
    models = [line.split(': ')[1] for line in cpuinfo.read_text().splitlines() if line.startswith('model name')]
    kind = models[0] if models else kind
  return f'{jax.device_count()} x {kind}'
