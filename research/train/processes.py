"""What the processes of one run must agree on; a process that is alone agrees with itself."""

import itertools

import jax
import numpy as np
from jax._src import distributed
from jax.experimental import multihost_utils

SECONDS = 600  # that a process waits for the others
_turns = itertools.count()


def is_first() -> bool:
  """Whether this is the process that writes files and talks to the user."""
  return jax.process_index() == 0


def from_first(value: int) -> int:
  """The value that the first process gave; all must call this, in the thread that trains."""
  return int(multihost_utils.broadcast_one_to_all(np.int32(value))) if jax.process_count() > 1 else value


def highest(value: int) -> int:
  """The largest value that a process gave; likewise."""
  return int(multihost_utils.process_allgather(np.int32(value)).max()) if jax.process_count() > 1 else value


def barrier(name: str) -> None:
  """Waits until all processes are here; uses no device, so that any one thread may call it."""
  if jax.process_count() > 1:
    distributed.global_state.client.wait_at_barrier(f'{name}/{next(_turns)}', 1_000 * SECONDS)
