"""The machine's peak rates, and the work of a step.

python -m benchmarks.limits prints both measured rates as JSON.
"""

import json
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import jax
import numpy as np

from benchmarks import stock
from benchmarks.families import Family
from research.train.flops import count_bytes, count_flops


def rates() -> dict[str, float]:
  """FLOPs per second of the fastest large product, and bytes per second read and written in a copy by all cores."""
  return {'flops_per_second': max(map(_multiplied, (1024, 2048))), 'bytes_per_second': _copied(2**28)}


def _multiplied(size: int) -> float:
  """With XLA or NumPy, whichever is faster."""
  matrix = np.random.default_rng(0).normal(size=(size, size)).astype(np.float32)
  product, x = jax.jit(jax.numpy.matmul), jax.device_put(matrix)
  seconds = min(_least(lambda: product(x, x).block_until_ready()), _least(lambda: matrix @ matrix))
  return 2 * size**3 / seconds


def _copied(size: int) -> float:
  parts = np.array_split(np.ones(size, np.uint8), os.cpu_count())
  copies = [np.empty_like(part) for part in parts]
  with ThreadPoolExecutor(len(parts)) as threads:
    return 2 * size / _least(lambda: list(threads.map(np.copyto, copies, parts)))


def _least(call: Callable[[], object], times: int = 5) -> float:
  """Seconds of the fastest call, except the first."""
  call()
  seconds = []
  for _ in range(times):
    begin = time.perf_counter()
    call()
    seconds.append(time.perf_counter() - begin)
  return min(seconds)


def work(family: Family) -> dict[str, int]:
  """FLOPs and bytes of a step, counted for Flax's own layers.

  Bytes are those read and written by products and convolutions, plus seven times the parameters for Adam, which reads
  parameters, gradients and two moments and writes all but the gradients.
  """
  step, arguments = stock.abstract_step(family)
  parameters = sum(leaf.size for leaf in jax.tree.leaves(arguments[0]))
  return {
    'parameters': parameters,
    'flops': count_flops(step, *arguments),
    'bytes': count_bytes(step, *arguments) + 7 * 4 * parameters,
  }


if __name__ == '__main__':
  print(json.dumps(rates()))
