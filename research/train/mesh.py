"""Which devices share the work, and what lies where."""

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from research.errors import ConfigError


def make_mesh(devices: int, batch_size: int) -> Mesh:
  """Mesh with one axis, `data`, over the first `devices` local devices (0 = all of them).

  Raises ConfigError when there are not so many, or when they cannot share a batch evenly.
  """
  local = jax.local_devices()
  count = devices or len(local)
  if count > len(local):
    raise ConfigError(f'config.devices={count}: this machine has {len(local)}')
  if batch_size % count:
    raise ConfigError(f'config.batch_size={batch_size}: must be a multiple of the {count} devices')
  return Mesh(np.asarray(local[:count]), ('data',), axis_types=(AxisType.Auto,))


def replicated(mesh: Mesh) -> NamedSharding:
  """A whole copy on every device."""
  return NamedSharding(mesh, PartitionSpec())
