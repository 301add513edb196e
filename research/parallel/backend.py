"""How a task runs on a mesh: as it is, gathering what fsdp has parted, or by `jax.pmap`."""

import jax
from jax import Array
from jax.sharding import Mesh

from research.metrics import Metrics
from research.parallel.layout import layout, log_layout
from research.parallel.mesh import MeshShape
from research.tasks.base import State, Task
from research.types import Batch, PyTree


def on_mesh(task: Task, shape: MeshShape, mesh: Mesh, key: Array, batch: Batch) -> tuple[Task, State]:
  """The task as it runs on the mesh, and the layout of its State: a tree of NamedSharding."""
  place = layout(task.init, mesh, key, batch)
  if shape.axis_name:
    return per_device(task, mesh, shape.axis_name), place
  if mesh.shape['fsdp'] * mesh.shape['tensor'] > 1:
    log_layout(jax.eval_shape(task.init, key, batch), place, mesh)
  if mesh.shape['fsdp'] == 1:
    return task, place
  return gathering(task, layout(task.init, mesh, key, batch, fsdp=False).params), place


def gathering(task: Task, whole: PyTree) -> Task:
  """`task` with a step that brings parameters together before it uses them.

  fsdp parts what is kept. Left free, XLA parts the products as well, and sends more for it.
  """

  def train_step(state: State, batch: Batch, key: Array) -> tuple[State, Metrics]:
    params = jax.lax.with_sharding_constraint(state.params, whole)
    return task.train_step(state.replace(params=params), batch, key)

  return task._replace(train_step=train_step)


def per_device(task: Task, mesh: Mesh, axis_name: str) -> Task:
  """`task` with a step that each device runs on its part of the batch, and that sums over `axis_name` itself."""
  devices = list(mesh.devices.flat)
  step = jax.pmap(task.train_step, axis_name, in_axes=(None, 0, None), out_axes=None, devices=devices)

  def train_step(state: State, batch: Batch, key: Array) -> tuple[State, Metrics]:
    parts = jax.tree.map(lambda rows: rows.reshape(len(devices), -1, *rows.shape[1:]), batch)
    return step(state, parts, key)

  return task._replace(train_step=train_step)
