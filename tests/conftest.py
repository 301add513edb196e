"""Tests run on eight fake CPU devices, with strict JAX, cheap compilation and one cache of compiled programs."""

import os
import pwd
from importlib.metadata import version

# Before importing jax, which reads both once.
os.environ['JAX_PLATFORMS'] = 'cpu'
os.environ['XLA_FLAGS'] = (
  os.environ.get('XLA_FLAGS', '')
  # Tiny programs take longer to compile than to run: hence little optimization.
  + ' --xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true'
  + ' --xla_force_host_platform_device_count=8'
)
if version('jaxlib').startswith('0.10.'):  # later ones have lost the emitters that compile in a third of the time
  os.environ['XLA_FLAGS'] += ' --xla_cpu_use_fusion_emitters=false'

import signal
from pathlib import Path

import forks
import jax
import jaxtyping
import pytest
from absl import flags

pytest_plugins = ['documents']  # of tests/support

CACHE = Path(os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache') / 'strata' / 'tests'

jax.config.update('jax_compilation_cache_dir', str(CACHE))
jax.config.update('jax_persistent_cache_min_compile_time_secs', 0)
jax.config.update('jax_persistent_cache_min_entry_size_bytes', -1)
jax.config.update('jax_numpy_rank_promotion', 'raise')
flags.FLAGS.mark_as_parsed()
signal.signal(signal.SIGINT, signal.default_int_handler)  # shells start background jobs with Ctrl-C ignored

# Check annotated shapes and types in modules imported from here on.
SHAPED = ('models', 'objectives', 'ops', 'metrics', 'data.augment', 'data.augment_series', 'data.audio')
CHECKER = 'beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))'  # a float may be given as an int
jaxtyping.install_import_hook([f'research.{name}' for name in SHAPED], CHECKER)


@pytest.fixture(scope='session')
def programs():
  """Starts programs in separate processes."""
  with forks.Server() as server:
    yield server


@pytest.fixture(scope='module', autouse=True)
def forgotten():
  """Frees the compiled programs of a module, as all modules together would take gigabytes."""
  yield
  jax.clear_caches()


@pytest.fixture
def x64():
  """Double precision within a test."""
  with jax.enable_x64(True):
    yield


@pytest.fixture
def nobody(monkeypatch):
  """A container user without a name or home."""

  def unknown(uid):
    raise KeyError(f'getpwuid(): uid not found: {uid}')

  monkeypatch.delenv('HOME', raising=False)
  monkeypatch.setattr(pwd, 'getpwuid', unknown)


@pytest.fixture(scope='session')
def mnist_is_here():
  """Skips a test if MNIST is unavailable."""
  from research.data import images
  from research.errors import DataError

  try:
    images.mnist()
  except DataError as error:
    pytest.skip(str(error))
