"""What the layers of research/ops and the CPU levers gain: one small network's training step against stock Linen's.

python -m launch.benchmark_ops --rounds=5

Each measurement is a process of its own, ours and the stock one in turn. The step: two 3x3 convolutions with
max-pooling and two dense layers on 128 images of 28x28 pixels, by Adam.
"""

import itertools
import statistics
import time

import jax
import optax
from absl import flags
from flax import linen as nn

from launch import app
from launch.children import measured
from research.models.cnn import ConvNet
from research.objectives.classification import softmax_cross_entropy
from research.tasks.supervised import supervised

ROUNDS = flags.DEFINE_integer('rounds', 5, 'processes of each kind', lower_bound=2)
LAYERS = flags.DEFINE_enum('layers', '', ['', 'ours', 'stock'], 'measure these in this process, and nothing else')
KINDS = {'ours': '--cpu_levers', 'stock': '--nocpu_levers'}


class Stock(nn.Module):
  """ConvNet of Linen's layers as they come."""

  @nn.compact
  def __call__(self, x, train=False):
    for channels in (32, 64):
      x = nn.max_pool(nn.relu(nn.Conv(channels, (3, 3))(x)), (2, 2), (2, 2))
    x = nn.relu(nn.Dense(128)(x.reshape(x.shape[0], -1)))
    return nn.Dense(10)(x)


def main() -> None:
  if LAYERS.value:
    print(step_seconds(ConvNet((32, 64), 10) if LAYERS.value == 'ours' else Stock()))
    return
  times = {kind: [] for kind in KINDS}
  for kind in itertools.chain.from_iterable(itertools.repeat(tuple(KINDS), ROUNDS.value)):
    times[kind].append(measured('launch.benchmark_ops', (f'--layers={kind}', KINDS[kind])))
  ratios = [ours / stock for ours, stock in zip(*times.values(), strict=True)]
  for kind, values in times.items():
    print(f'{kind}: {1e3 * statistics.median(values):.1f} ms a step, at best {1e3 * min(values):.1f}')
  print(f'ratio: median {statistics.median(ratios):.3f}, from {min(ratios):.3f} to {max(ratios):.3f}')


def step_seconds(model: nn.Module, steps: int = 15, blocks: int = 4) -> float:
  """Median time of a training step over blocks of steps, the first left out."""
  task, key = supervised(model, softmax_cross_entropy(), optax.adam(1e-3)), jax.random.key(0)
  inputs = jax.random.normal(key, (128, 28, 28, 1))
  batch = {'inputs': inputs, 'targets': jax.random.randint(key, (128,), 0, 10)}
  state, step = jax.jit(task.init)(key, batch), jax.jit(task.train_step, donate_argnums=0)
  times = []
  for _ in range(blocks + 1):
    start = time.perf_counter()
    for _ in range(steps):
      state, _ = step(state, batch, key)
    jax.block_until_ready(state)
    times.append((time.perf_counter() - start) / steps)
  return statistics.median(times[1:])


if __name__ == '__main__':
  app.run(main)
