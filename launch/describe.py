"""Describes an experiment without training it: parameters, floating-point operations of a step, memory, sharding.

python -m launch.describe --config=experiments/cnn_digits/config.py --config.batch_size=256
"""

import math
from typing import Any

import jax
from jax.sharding import NamedSharding, PartitionSpec

from launch import app
from launch.flags import define_config
from research.tasks.base import State
from research.train.flops import count_flops
from research.train.mesh import make_mesh, replicated

CONFIG = define_config()


def main() -> None:
  config = CONFIG.value
  config.validate()
  experiment = config.build()
  mesh = make_mesh(config.devices, config.batch_size)
  index = experiment.train.indices(0)
  batch = {**experiment.train.examples.rows(index), 'index': index}
  batch = abstract(batch, NamedSharding(mesh, PartitionSpec('data')))
  key = abstract(jax.random.key(config.seed), replicated(mesh))
  state = abstract(jax.eval_shape(experiment.task.init, key, batch), replicated(mesh))
  print(parameter_table(state.params))
  print(f'\nState: {size(state)}, of it {parts(state)}')
  print(f'Batch: {size(batch)} in {config.batch_size} examples, over {mesh.size} device(s)')

  step = jax.jit(experiment.task.train_step, donate_argnums=0)
  flops = count_flops(step, state, batch, key)
  print(f'Step: {flops:,} operations in matrix products and convolutions, {flops // config.batch_size:,} an example')
  memory = step.lower(state, batch, key).compile().memory_analysis()
  peak = memory.argument_size_in_bytes + memory.temp_size_in_bytes
  peak += memory.output_size_in_bytes - memory.alias_size_in_bytes
  print(f'Memory of a step, a device: {peak:,} bytes, of it {memory.temp_size_in_bytes:,} temporary')


def abstract(tree: Any, sharding: NamedSharding) -> Any:
  """Shapes and dtypes of a tree, laid out as `sharding` says."""
  return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), tree)


def parameter_table(params: Any) -> str:
  """Path, shape, dtype, count, bytes and sharding of every parameter, and their sums."""
  rows = [('parameter', 'shape', 'dtype', 'count', 'bytes', 'sharding')]
  for path, leaf in jax.tree_util.tree_leaves_with_path(params):
    name = jax.tree_util.keystr(path, simple=True, separator='/')
    layout = str(leaf.sharding.spec) if any(leaf.sharding.spec) else 'replicated'
    rows.append((name, str(leaf.shape), str(leaf.dtype), f'{leaf.size:,}', f'{_bytes(leaf):,}', layout))
  leaves = jax.tree.leaves(params)
  rows.append(('sum', '', '', f'{sum(leaf.size for leaf in leaves):,}', f'{sum(map(_bytes, leaves)):,}', ''))
  widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
  aligned = '{:{}}  {:{}}  {:{}}  {:>{}}  {:>{}}  {:{}}'
  return '\n'.join(aligned.format(*sum(zip(row, widths, strict=True), ())).rstrip() for row in rows)


def parts(state: State) -> str:
  """Bytes of each part of a State that has any."""
  return ', '.join(f'{name} {size(part)}' for name, part in vars(state).items() if jax.tree.leaves(part))


def size(tree: Any) -> str:
  """Bytes of a tree, to be read."""
  return f'{sum(map(_bytes, jax.tree.leaves(tree))):,} bytes'


def _bytes(leaf: Any) -> int:
  return math.prod(leaf.shape) * leaf.dtype.itemsize


if __name__ == '__main__':
  app.run(main)
