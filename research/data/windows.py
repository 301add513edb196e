"""Token sequences as windows of equal length, with next-token targets."""

from collections.abc import Iterable, Iterator

import numpy as np

from research.data.examples import Arrays
from research.data.source import Source
from research.errors import ConfigError, check_count, check_counts


class Streams(Source):
  """Batches whose rows continue those of the previous batch, for models that carry state.

  The windows of `examples` are in text order. Row b reads the b-th of `batch_size` equal streams, one window per step,
  and restarts after the last one, where `reset` of `stream_examples` is True.
  """

  def indices(self, step: int) -> np.ndarray:
    """Windows of the batch at `step`: int32 [batch]."""
    steps = len(self.examples) // self.batch_size
    return (np.arange(self.batch_size) * steps + step % steps).astype(np.int32)


def stream_examples(documents: Iterable[np.ndarray], batch_size: int, length: int) -> Arrays:
  """Windows for `Streams` over concatenated documents: `inputs`, `targets` [windows, length], `reset` [windows].

  The remainder that does not fill a window in every row, less than (length + 1) * batch_size tokens, is dropped. Raises
  ConfigError if that would be everything.
  """
  check_counts(batch_size=batch_size, length=length)
  tokens = np.concatenate(list(documents))
  steps = (len(tokens) - 1) // (batch_size * length)
  if not steps:
    needed = batch_size * length + 1
    raise ConfigError(f'batch_size x length: {batch_size} x {length} need {needed} tokens, but there are {len(tokens)}')
  windows = batch_size * steps
  inputs, targets = (tokens[start : start + windows * length].reshape(windows, length) for start in (0, 1))
  return Arrays({'inputs': inputs, 'targets': targets, 'reset': np.arange(windows) % steps == 0})


def context_examples(documents: Iterable[np.ndarray], context: int, length: int) -> Arrays:
  """Evaluation windows: every token of each document except the first is a target exactly once.

  Arrays `inputs`, `targets`, `weights` [windows, context + length] and `document` [windows], its index. The first
  `context` targets of a window have weight 0, as the model has seen little there, and so has padding; in the first
  window of a document all targets count. Raises ConfigError for a negative context and an empty window.
  """
  check_count('context', context, at_least=0)
  check_count('length', length)
  rows = [(*row, number) for number, tokens in enumerate(documents) for row in _context_rows(tokens, context, length)]
  inputs, targets, weights, numbers = map(np.stack, zip(*rows, strict=True))
  return Arrays({'inputs': inputs, 'targets': targets, 'weights': weights.astype(np.float32), 'document': numbers})


def _context_rows(tokens: np.ndarray, context: int, length: int) -> Iterator[tuple[np.ndarray, ...]]:
  targets, width = len(tokens) - 1, context + length
  padded = np.pad(tokens, (0, width))
  for start in range(0, max(targets - context, 1), length):
    places = start + np.arange(width)
    counts = (places < targets) & ((places >= start + context) | (start == 0))
    yield padded[places], padded[places + 1], counts
