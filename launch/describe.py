"""Describes an experiment without training it: parameters, FLOPs per step, memory, sharding.

python -m launch.describe --config=cnn_digits --config.batch_size=256
"""

import math
from typing import Any

import jax

from launch import app
from launch.flags import define_config
from research.parallel import placement
from research.parallel.backend import on_mesh
from research.parallel.collectives import collectives
from research.parallel.layout import abstract, bytes_per_device
from research.parallel.mesh import make_mesh, replicated
from research.tasks.base import State
from research.train.experiment import checked
from research.train.flops import count_flops

CONFIG = define_config()


def main() -> None:
  config = CONFIG.value
  config.validate()
  experiment = checked(config.build())
  mesh = make_mesh(config.mesh, config.batch_size, config.accumulate)
  key = abstract(jax.random.key(config.seed), replicated(mesh))
  index = experiment.train.indices(0)
  batch = abstract({**experiment.train.examples.rows(index), 'index': index}, placement.batch_sharding(mesh))
  task, place = on_mesh(experiment.task, config.mesh, mesh, key, batch)
  state = abstract(jax.eval_shape(task.init, key, batch), place)
  print(parameter_table(state.params))
  print(f'\nState: {size(state)}, of which {parts(state)}')
  print(f'State per device: {sum(map(bytes_per_device, jax.tree.leaves(state))):,} bytes')
  print(f'Batch: {size(batch)} in {config.batch_size} examples, over {mesh.size} device(s)')

  step = jax.jit(task.train_step, donate_argnums=0, out_shardings=(place, replicated(mesh)))
  flops = count_flops(step, state, batch, key)
  print(f'Step: {flops:,} operations in matrix products and convolutions, {flops // config.batch_size:,} per example')
  with jax.set_mesh(mesh):
    compiled = step.lower(state, batch, key).compile()
  memory = compiled.memory_analysis()
  peak = memory.argument_size_in_bytes + memory.temp_size_in_bytes
  peak += memory.output_size_in_bytes - memory.alias_size_in_bytes
  print(f'Memory of a step per device: {peak:,} bytes, of which {memory.temp_size_in_bytes:,} temporary')
  sent = [f'{found.count} {kind} ({found.size:,} bytes)' for kind, found in collectives(compiled.as_text()).items()]
  print(f'Collectives of a step per device: {", ".join(sent) or "none"}')


def parameter_table(params: Any) -> str:
  """Path, shape, dtype, count, bytes, sharding and bytes per device of every parameter, with totals."""
  rows = [('parameter', 'shape', 'dtype', 'count', 'bytes', 'per device', 'sharding')]
  for path, leaf in jax.tree_util.tree_leaves_with_path(params):
    name = jax.tree_util.keystr(path, simple=True, separator='/')
    spec = ', '.join(str(axis) for axis in leaf.sharding.spec) if any(leaf.sharding.spec) else 'replicated'
    counts = (f'{number:,}' for number in (leaf.size, _bytes(leaf), bytes_per_device(leaf)))
    rows.append((name, str(leaf.shape), str(leaf.dtype), *counts, spec))
  sums = (sum(map(measure, jax.tree.leaves(params))) for measure in (lambda leaf: leaf.size, _bytes, bytes_per_device))
  rows.append(('total', '', '', *(f'{total:,}' for total in sums), ''))
  widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
  aligned = '{:{}}  {:{}}  {:{}}  {:>{}}  {:>{}}  {:>{}}  {:{}}'
  return '\n'.join(aligned.format(*sum(zip(row, widths, strict=True), ())).rstrip() for row in rows)


def parts(state: State) -> str:
  """Bytes of each nonempty part of a State."""
  return ', '.join(f'{name} {size(part)}' for name, part in vars(state).items() if jax.tree.leaves(part))


def size(tree: Any) -> str:
  """The size of a tree, human-readable."""
  return f'{sum(map(_bytes, jax.tree.leaves(tree))):,} bytes'


def _bytes(leaf: Any) -> int:
  return math.prod(leaf.shape) * leaf.dtype.itemsize


if __name__ == '__main__':
  app.run(main)
