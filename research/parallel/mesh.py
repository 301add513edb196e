"""Device meshes."""

import dataclasses
import math

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from research.errors import ConfigError

AXES = ('data', 'fsdp', 'tensor')
BACKENDS = ('jit', 'pmap')


@dataclasses.dataclass
class MeshShape:
  """Numbers of devices along each axis; at most one is -1, for all remaining devices."""

  data: int = -1  # data parallelism: devices that share a batch, each with the whole State
  fsdp: int = 1  # FSDP: devices that share a batch, each with a shard of the State
  tensor: int = 1  # tensor parallelism: devices that share the features of wide layers
  backend: str = 'jit'  # jit or pmap, which supports data parallelism only

  @property
  def axis_name(self) -> str:
    """The axis over which a task must sum explicitly; '' if the compiler does."""
    return 'data' if self.backend == 'pmap' else ''

  def validate(self) -> None:
    """Raises ConfigError for shapes that no set of devices could have."""
    for name in AXES:
      if getattr(self, name) < 1 and getattr(self, name) != -1:
        raise ConfigError(
          f'config.mesh.{name}={getattr(self, name)}: must be at least 1, or -1 for all remaining devices'
        )
    if [getattr(self, name) for name in AXES].count(-1) > 1:
      raise ConfigError('config.mesh: two axes are -1; only one can use the remaining devices')
    if self.backend not in BACKENDS:
      raise ConfigError(f'config.mesh.backend={self.backend!r}: must be one of {", ".join(BACKENDS)}')
    if self.backend == 'pmap' and (self.fsdp, self.tensor) != (1, 1):
      raise ConfigError('config.mesh.backend=pmap: shards the batch only; fsdp and tensor must be 1, or use jit')


def make_mesh(shape: MeshShape, batch_size: int, accumulate: int = 1) -> Mesh:
  """Mesh with the axes data, fsdp and tensor over the devices of all processes; for pmap with data only.

  A single process may use fewer devices than it has. Raises ConfigError if there are too few, or if they do not divide
  the batch, or each of its `accumulate` micro-batches, evenly.
  """
  shape.validate()
  devices, sizes = jax.devices(), [getattr(shape, name) for name in AXES]
  known = math.prod(size for size in sizes if size != -1)
  sizes = [max(len(devices) // known, 1) if size == -1 else size for size in sizes]
  count = math.prod(sizes)
  text = ' x '.join(f'{name} {size}' for name, size in zip(AXES, sizes, strict=True))
  if count > len(devices) or (count < len(devices) and jax.process_count() > 1):
    raise ConfigError(f'config.mesh: {text} makes {count} devices, and there are {len(devices)}')
  if batch_size % (sizes[0] * sizes[1] * accumulate):
    parts = f'{sizes[0] * sizes[1]} devices (data x fsdp)' + f' x {accumulate} micro-batches' * (accumulate > 1)
    raise ConfigError(f'config.batch_size={batch_size}: must be a multiple of the {parts}')
  if shape.backend == 'pmap' and jax.process_count() > 1:
    raise ConfigError('config.mesh.backend=pmap: works in one process only; use jit')
  axes = (shape.axis_name,) if shape.axis_name else AXES  # pmap's mesh has only its own axis
  return jax.make_mesh(sizes[: len(axes)], axes, (AxisType.Auto,) * len(axes), devices=devices[:count])


def replicated(mesh: Mesh) -> NamedSharding:
  """Replicated on every device."""
  return NamedSharding(mesh, PartitionSpec())
