"""What the processes of one run must agree on; a process that is alone agrees with itself."""

import itertools
import json
from collections.abc import Mapping

import jax
import numpy as np
from jax._src import distributed
from jax.experimental import multihost_utils

from research.errors import ConfigError

SECONDS = 600  # that a process waits for the others
_turns = itertools.count()


def alone() -> bool:
  """Whether no others have been met; asks JAX for no device."""
  return distributed.global_state.client is None


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


def agree(facts: Mapping[str, str]) -> None:
  """Raises ConfigError, in all processes, if the facts of one differ from those of the first; all must call this.

  The error names the facts and the process; a fact that one of the two lacks is not compared. Needs no device: each
  process reads the facts of the first, and then what the others found.
  """
  state, place = distributed.global_state, f'agree/{next(_turns)}'
  client, own = state.client, state.process_id
  if own == 0:
    client.key_value_set(f'{place}/facts', json.dumps(facts))
  first = json.loads(client.blocking_key_value_get(f'{place}/facts', 1_000 * SECONDS))
  differing = [name for name in first if facts.get(name, first[name]) != first[name]]
  found = [f'{name} is {first[name]} in process 0 and {facts[name]} in process {own}' for name in differing]
  client.key_value_set(f'{place}/{own}', json.dumps(found))
  for number in range(state.num_processes):
    if other := json.loads(client.blocking_key_value_get(f'{place}/{number}', 1_000 * SECONDS)):
      more = f' (and {len(other) - 3} more)' if len(other) > 3 else ''
      raise ConfigError(f'{", ".join(other[:3])}{more}: start all processes with the same command, code and versions')
