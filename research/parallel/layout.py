"""The sharding of a State over devices."""

import math
from collections.abc import Callable

import jax
from absl import logging
from flax import linen as nn
from jax import Array
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from research.parallel import placement
from research.parallel.mesh import replicated
from research.tasks.base import State
from research.types import Batch, PyTree

# Tensor parallelism: the mesh axes of the axes named by layers (research/ops/logical.py). Layers are sharded along
# output features, not along the features they sum over.
RULES = (
  ('features', 'tensor'),
  ('heads', 'tensor'),
  ('vocab', 'tensor'),
  ('inputs', None),
  ('head_features', None),
)
LEAST = 256  # entries of a leaf from which fsdp shards it


def layout(init: Callable[..., State], mesh: Mesh, key: Array, batch: Batch, fsdp: bool = True) -> State:
  """The NamedSharding of every leaf of the State that `init(key, batch)` returns.

  Parameters are sharded along `tensor` by the axes named by their layer, and optimizer moments like their parameters.
  Then, if `fsdp`, every leaf of at least 256 entries, including moments, EMA and statistics, is sharded along `fsdp`:
  on the axis that `tensor` shards already, or else on its longest one. Axes that do not divide evenly are not sharded.
  `State.memory` is sharded with the batch.
  """
  with nn.logical_axis_rules(RULES):
    # A separate function: JAX caches traces by function, and one with names must not serve other callers.
    named = jax.eval_shape(lambda *given: init(*given), key, batch)
  state, tensor = nn.unbox(named), {**_tensor_axes(named.frozen), **_tensor_axes(named.params)}

  def sharding(path: tuple, leaf: jax.ShapeDtypeStruct) -> NamedSharding:
    names = _names(path)
    if names[0] == 'memory':
      return replicated(mesh) if leaf.shape[0] % placement.num_shards(mesh) else placement.batch_sharding(mesh)
    axes = _dividing(leaf.shape, _own_axes(names, leaf.shape, tensor), mesh)
    return NamedSharding(mesh, PartitionSpec(*(_with_fsdp(leaf.shape, axes, mesh) if fsdp else axes)))

  return jax.tree.map_with_path(sharding, state)


def abstract(tree: PyTree, shardings: PyTree) -> PyTree:
  """Shapes and dtypes of `tree` with `shardings`, which may be a prefix tree."""
  whole = jax.tree.broadcast(shardings, tree)
  return jax.tree.map(lambda leaf, place: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place), tree, whole)


def log_layout(state: State, shardings: State, mesh: Mesh) -> None:
  """Logs the rule and the resulting memory."""
  leaves = jax.tree.leaves(abstract(state, shardings))
  split = sum(any(leaf.sharding.spec) for leaf in leaves)
  whole, held = sum(leaf.size * leaf.dtype.itemsize for leaf in leaves), sum(map(bytes_per_device, leaves))
  logging.info(
    'State: %d of %d leaves are sharded (tensor: by the axes of their layers; fsdp: on that axis or the longest one of '
    'leaves with at least %d entries): %s bytes, %s per device',
    *(split, len(leaves), LEAST, f'{whole:,}', f'{held:,}'),
  )


def bytes_per_device(leaf: jax.ShapeDtypeStruct) -> int:
  """Bytes of a sharded leaf on each device that holds a shard."""
  return math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize


def _tensor_axes(params: PyTree) -> dict[tuple[str, ...], tuple[tuple[int, ...], tuple]]:
  """Shape and mesh axes of every parameter that names its axes, by path."""
  leaves = jax.tree.leaves_with_path(params, is_leaf=lambda leaf: isinstance(leaf, nn.LogicallyPartitioned))
  return {
    _names(path): (leaf.value.shape, tuple(nn.logical_to_mesh(leaf.get_partition_spec(), RULES)))
    for path, leaf in leaves
    if isinstance(leaf, nn.LogicallyPartitioned)
  }


def _own_axes(names: tuple[str, ...], shape: tuple[int, ...], tensor: dict) -> tuple:
  """Mesh axes of the parameter whose path is contained in `names`: the longest match with the same shape."""
  found = [path for path, (known, _) in tensor.items() if known == shape and _contains(names, path)]
  return tensor[max(found, key=len)][1] if found else (None,) * len(shape)


def _contains(names: tuple[str, ...], path: tuple[str, ...]) -> bool:
  """Whether `path` is a subsequence of `names`: opt_state/critic/0/mu/dense_0/kernel."""
  rest = iter(names)
  return all(name in rest for name in path)


def _dividing(shape: tuple[int, ...], axes: tuple, mesh: Mesh) -> list:
  """The mesh axes with several devices, if those divide the size."""
  counts = [mesh.shape.get(axis, 1) for axis in axes]
  parted = [count > 1 and not size % count for size, count in zip(shape, counts, strict=True)]
  return [axis if split else None for axis, split in zip(axes, parted, strict=True)]


def _with_fsdp(shape: tuple[int, ...], axes: list, mesh: Mesh) -> list:
  """On the axis of `tensor`, if any: XLA computed wrong gradients if the two sharded different axes (jaxlib 0.10.2)."""
  count = mesh.shape.get('fsdp', 1)
  if count == 1 or math.prod(shape) < LEAST:
    return axes
  taken = [place for place, axis in enumerate(axes) if axis] or range(len(shape))
  if places := [place for place in taken if not shape[place] % (count * mesh.shape.get(axes[place], 1))]:
    place = max(places, key=lambda place: shape[place])
    axes[place] = (axes[place], 'fsdp') if axes[place] else 'fsdp'
  return axes


def _names(path: tuple) -> tuple[str, ...]:
  return tuple(jax.tree_util.keystr((key,), simple=True) for key in path)
