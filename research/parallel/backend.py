"""Running a task on a mesh: with jit, gathering FSDP parameters, or with `jax.pmap`."""

import dataclasses

import jax
from jax import Array
from jax.sharding import Mesh

from research.metrics import Metrics
from research.parallel.layout import layout, log_layout
from research.parallel.mesh import MeshShape
from research.tasks.base import State, Task
from research.types import Batch, PyTree


def on_mesh(task: Task, shape: MeshShape, mesh: Mesh, key: Array, batch: Batch) -> tuple[Task, State]:
  """The task to run on the mesh, and the layout of its State as a tree of NamedSharding."""
  place = layout(task.init, mesh, key, batch)
  if shape.axis_name:
    return per_device(task, mesh, shape.axis_name), place
  if mesh.shape['fsdp'] * mesh.shape['tensor'] > 1:
    log_layout(jax.eval_shape(task.init, key, batch), place, mesh)
  if mesh.shape['fsdp'] == 1:
    return task, place
  return gathering(task, layout(task.init, mesh, key, batch, fsdp=False)), place


def gathering(task: Task, whole: State) -> Task:
  """`task` with a step that gathers parameters before use, into `whole`, the layout without FSDP.

  FSDP shards storage only. Left to itself, XLA also shards the products, with more communication.
  """

  def train_step(state: State, batch: Batch, key: Array) -> tuple[State, Metrics]:
    used, places = (state.params, state.frozen), (whole.params, whole.frozen)
    params, frozen = jax.lax.with_sharding_constraint(used, places)
    return task.train_step(state.replace(params=params, frozen=frozen), batch, key)

  return task._replace(train_step=train_step)


def per_device(task: Task, mesh: Mesh, axis_name: str) -> Task:
  """`task` with a step that each device runs on its shard of the batch, summing over `axis_name` itself.

  `State.memory` is sharded with the batch; the rest of the State is replicated.
  """
  devices = list(mesh.devices.flat)
  axes = State(**{field.name: 0 if field.name == 'memory' else None for field in dataclasses.fields(State)})
  step = jax.pmap(task.train_step, axis_name, in_axes=(axes, 0, None), out_axes=(axes, None), devices=devices)

  def split(tree: PyTree) -> PyTree:
    return jax.tree.map(lambda rows: rows.reshape(len(devices), -1, *rows.shape[1:]), tree)

  def train_step(state: State, batch: Batch, key: Array) -> tuple[State, Metrics]:
    state, metrics = step(state.replace(memory=split(state.memory)), split(batch), key)
    return state.replace(memory=jax.tree.map(lambda rows: rows.reshape(-1, *rows.shape[2:]), state.memory)), metrics

  return task._replace(train_step=train_step)
