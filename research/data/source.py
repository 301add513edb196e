"""The examples of each step: a pure function of (seed, step), for any number of processes."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from research.data.examples import Examples, not_finite
from research.errors import check_count


@dataclass(frozen=True)
class Source:
  """An endless stream of batches, with a new permutation every epoch and no example left out.

  Of `Arrays({})`, which has no examples, a batch is the numbers of its rows alone: those of an agent's environments.
  Raises ConfigError for an empty batch and a negative seed.
  """

  examples: Examples
  batch_size: int
  seed: int = 0

  def __post_init__(self):
    check_count('batch_size', self.batch_size)
    check_count('seed', self.seed, at_least=0)

  def indices(self, step: int) -> np.ndarray:
    """Examples of the batch at `step`: int32 [batch]. A batch may span two epochs."""
    start, size = step * self.batch_size, len(self.examples)
    if not size:
      return np.arange(self.batch_size, dtype=np.int32)
    parts = []
    for epoch in range(start // size, (start + self.batch_size - 1) // size + 1):
      low = max(start - epoch * size, 0)
      parts.append(_permutation(size, self.seed, epoch)[low : start + self.batch_size - epoch * size])
    return np.concatenate(parts)

  def not_finite(self, step: int) -> str:
    """Names the first example of the batch at `step` with NaN or infinite entries; '' if there is none."""
    return not_finite(self.examples, self.indices(step))


@lru_cache(maxsize=4)
def _permutation(size: int, seed: int, epoch: int) -> np.ndarray:
  return np.random.default_rng((seed, epoch)).permutation(size).astype(np.int32)
