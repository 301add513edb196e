"""Input throughput: our feeds, PyTorch's DataLoader and plain NumPy, each in its own process.

python -m benchmarks.inputs --gigabytes=5

Three datasets, all read in random order: MNIST images and windows of a text, both in memory, and 64x64 images in a
generated file of the given size. A batch counts as read once a step could use it. Memory is the peak of the process,
without the workers of a DataLoader.
"""

import importlib.util
import itertools
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import flags

from benchmarks.measure import peak_bytes
from benchmarks.record import Row, define_record_flag, publish
from launch import app, cpu
from research.data import images
from research.data.examples import Examples
from research.data.feed import make_feed
from research.data.shakespeare import shakespeare
from research.data.source import Source
from research.data.windows import stream_examples
from research.errors import DataError
from research.parallel.mesh import MeshShape, make_mesh
from research.report.tables import grid

SHAPE = (64, 64, 3)  # of an image in the file
CHUNK = 2**13  # images generated at a time


@dataclass(frozen=True)
class Stored:
  """Images in a memory-mapped file, which is unmapped after each batch."""

  path: Path

  def __len__(self) -> int:
    return self.path.stat().st_size // int(np.prod(SHAPE))

  def rows(self, indices: np.ndarray) -> dict[str, np.ndarray]:
    return {'inputs': np.memmap(self.path, np.uint8, 'r', shape=(len(self), *SHAPE))[indices]}


def main() -> None:
  given = flags.FLAGS
  with tempfile.TemporaryDirectory(dir=given.folder) as folder:
    path = Path(folder) / 'images'
    make_images(path, given.gigabytes)
    sets = {'MNIST': mnist, 'text': text, f'{given.gigabytes:g} GB on disk': partial(stored, path)}
    rows = list(measured(sets, readers(), given.rounds, given.seconds))
  publish('inputs', rows, table)


def readers() -> list[str]:
  """The installed readers."""
  if importlib.util.find_spec('torch'):
    return list(READERS)
  print("torch is left out: it is not installed; pip install -e '.[peers]'")
  return [reader for reader in READERS if not reader.startswith('torch')]


def make_images(path: Path, gigabytes: float) -> None:
  """Writes about that much noise."""
  rng, size = np.random.default_rng(0), int(np.prod(SHAPE))
  count = max(1, round(gigabytes * 1e9 / size))
  with path.open('wb') as file:
    for start in range(0, count, CHUNK):
      file.write(rng.bytes(min(CHUNK, count - start) * size))


def mnist() -> Source:
  """Batches of 128 images of 28x28 bytes."""
  return Source(images.mnist().train, 128)


def text() -> Source:
  """Batches of 32 windows of 64 characters, with targets."""
  plays = [np.frombuffer(play.encode(), np.uint8).astype(np.int32) for play in shakespeare().train.values()]
  return Source(stream_examples(plays, 32, 64), 32)


def stored(path: Path) -> Source:
  """Batches of 128 images from a file."""
  return Source(Stored(path), 128)


def measured(
  sets: dict[str, Callable[[], Source]], readers: Sequence[str], rounds: int, seconds: float
) -> Iterator[Row]:
  """A row per available dataset and reader."""
  with ProcessPoolExecutor(1, get_context('spawn'), max_tasks_per_child=1) as processes:
    for name, make in sets.items():
      try:
        for reader in readers:
          found = processes.submit(measure, make, reader, rounds, seconds).result()
          yield {'set': name, 'reader': reader, **found}
      except DataError as error:
        print(f'{name} is left out: {error}')


def measure(make: Callable[[], Source], reader: str, rounds: int, seconds: float) -> dict[str, Any]:
  """Examples per second of a reader, the median over rounds of `seconds` each, and memory."""
  cpu.tune()
  source = make()
  batches = READERS[reader](source)
  next(batches)
  before = peak_bytes()
  speeds = [_examples_per_second(batches, seconds, source.batch_size) for _ in range(rounds)]
  return {
    'examples_per_second': statistics.median(speeds),
    'spread': [min(speeds), max(speeds)],
    'bytes_per_example': sum(array.nbytes for array in source.examples.rows(np.zeros(1, int)).values()),
    'first_bytes': before,
    'peak_bytes': peak_bytes(),
  }


def _examples_per_second(batches: Iterator[Any], seconds: float, batch_size: int) -> float:
  count, begin = 0, time.perf_counter()
  while (taken := time.perf_counter() - begin) < seconds:
    next(batches)
    count += batch_size
  return count / taken


def by_feed(source: Source) -> Iterator[Any]:
  """As in the training loop: on the device."""
  with make_feed(source, make_mesh(MeshShape(), source.batch_size)) as feed:
    batch = jax.jit(feed.batch)
    for step in itertools.count():
      yield jax.block_until_ready(batch(feed.inputs(step), np.int32(step)))


def by_numpy(source: Source) -> Iterator[Any]:
  """As in a hand-written loop: rows of a permutation per epoch."""
  rng, size = np.random.default_rng(0), source.batch_size
  while True:
    order = rng.permutation(len(source.examples))
    for start in range(0, len(order) - size + 1, size):
      yield source.examples.rows(order[start : start + size])


def by_torch(source: Source, workers: int) -> Iterator[Any]:
  """With a DataLoader that reads whole batches, which is much faster than single examples."""
  from torch.utils.data import DataLoader

  options = {'num_workers': workers, 'persistent_workers': workers > 0, 'collate_fn': _tensors}
  loader = DataLoader(Batched(source.examples), source.batch_size, shuffle=True, **options)
  while True:
    yield from loader


@dataclass(frozen=True)
class Batched:
  """Examples for a DataLoader."""

  examples: Examples

  def __len__(self) -> int:
    return len(self.examples)

  def __getitems__(self, indices: Sequence[int]) -> dict[str, np.ndarray]:
    return self.examples.rows(np.asarray(indices))


def _tensors(rows: dict[str, np.ndarray]) -> dict[str, Any]:
  import torch

  return {name: torch.from_numpy(array) for name, array in rows.items()}


READERS = {
  'ours': by_feed,
  'numpy': by_numpy,
  'torch, 0 workers': partial(by_torch, workers=0),
  'torch, 2 workers': partial(by_torch, workers=2),
}


def table(rows: Sequence[Row]) -> str:
  """Speed and memory per dataset and reader."""
  heading = ('set', 'reader', 'examples/s', 'from', 'to', 'MB/s', 'MB after a batch', 'MB at most')
  return grid([heading, *map(_cells, rows)])


def _cells(row: Row) -> tuple[str, ...]:
  speeds = (f'{speed:,.0f}' for speed in (row['examples_per_second'], *row['spread']))
  rate = row['examples_per_second'] * row['bytes_per_example']
  sizes = (f'{value / 1e6:,.0f}' for value in (rate, row['first_bytes'], row['peak_bytes']))
  return row['set'], row['reader'], *speeds, *sizes


if __name__ == '__main__':
  flags.DEFINE_float('gigabytes', 5.0, 'size of the dataset on disk', lower_bound=0.0)
  flags.DEFINE_string('folder', None, "folder for it; default: the system's temporary folder")
  flags.DEFINE_integer('rounds', 5, 'rounds per process', lower_bound=1)
  flags.DEFINE_float('seconds', 2.0, 'approximate duration of a round', lower_bound=0.01)
  define_record_flag()
  app.run(main)
