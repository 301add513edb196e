"""What results depend on besides the config: code, versions and machine."""

import contextlib
import importlib.metadata
import itertools
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from research.paths import ROOT
from research.train.config import Config
from research.train.modules import code_of

PACKAGES = ('jax', 'jaxlib', 'flax', 'optax', 'orbax-checkpoint', 'numpy')


Start = Mapping[str, Any]  # an entry of environment.json


def environment(config: Config) -> dict[str, Any]:
  """All of it, for environment.json."""
  return {
    'time': time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime()),
    'command': sys.argv,
    **software(config),
    'device': device(),
    'cores': len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count(),
  }


def software(config: Config) -> dict[str, Any]:
  """Code and versions, without initializing JAX's devices."""
  return {
    'commit': commit(),
    'python': sys.version.split()[0],
    'versions': {name: importlib.metadata.version(name) for name in PACKAGES},
    'code': code_of(config),
  }


def changed(before: Start, now: Start) -> str:
  """Files and versions that differ between two starts, on one line; only those known to both are compared."""
  files = _differing(before.get('code', {}), now.get('code', {}))
  more = [f'and {len(files) - 5} more files'] if len(files) > 5 else []
  old, new = ({'python': start['python'], **start['versions']} for start in (before, now))
  return ', '.join([*files[:5], *more, *(f'{name} {old[name]} -> {new[name]}' for name in _differing(old, new))])


def changes(starts: Sequence[Start]) -> dict[int, str]:
  """What changed while a run was trained, by the step at which it changed.

  Only starts whose steps are part of the final run count: one that continues from an earlier step repeats the steps of
  the start before. Older workdirs have neither step nor code of their starts.
  """
  kept: list[Start] = []
  for start in starts:
    kept = [*(other for other in kept if other.get('step', 0) < start.get('step', 0)), start]
  pairs = itertools.pairwise(kept)
  return {now['step']: what for before, now in pairs if (what := changed(before, now))}


def _differing(old: Mapping[str, str], new: Mapping[str, str]) -> list[str]:
  return [name for name in new if old.get(name, new[name]) != new[name]]


def commit() -> str:
  """Commit of the code, with '-dirty' if code is not committed (results and texts may be)."""
  with contextlib.suppress(OSError, subprocess.CalledProcessError):
    head = _git('rev-parse', '--short=12', 'HEAD')
    return head + ('-dirty' if _git('status', '--porcelain', '--', '*.py', '*.cfg', '*.toml') else '')
  return ''


def uncommitted() -> list[str]:
  """Files, relative to the root, that differ from the commit or are untracked."""
  changed = _git('diff', '--name-only', '--relative', '-z', 'HEAD')
  return [name for name in (changed + _git('ls-files', '--others', '--exclude-standard', '-z')).split('\0') if name]


def is_kept() -> bool:
  """Whether the commit is on a branch or tag, as git would eventually drop it otherwise."""
  return bool(_git('for-each-ref', '--contains', 'HEAD', '--count=1'))


def _git(*command: str) -> str:
  return subprocess.run(['git', '-C', str(ROOT), *command], capture_output=True, text=True, check=True).stdout.strip()


def device() -> str:
  """Number and kind of the devices; for CPUs the model, as JAX says only `cpu`."""
  kind, cpuinfo = jax.devices()[0].device_kind, Path('/proc/cpuinfo')
  if kind == 'cpu' and cpuinfo.exists():
    models = [line.split(': ')[1] for line in cpuinfo.read_text().splitlines() if line.startswith('model name')]
    kind = models[0] if models else kind
  return f'{jax.device_count()} x {kind}'
