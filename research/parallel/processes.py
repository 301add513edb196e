"""Agreement between the processes of a run; trivial for a single process."""

import itertools
import json
from collections.abc import Mapping

import jax
import numpy as np
from jax._src import distributed
from jax.experimental import multihost_utils

from research.errors import ConfigError

SECONDS = 600  # timeout of waiting for the others
_turns = itertools.count()


def alone() -> bool:
  """Whether this is the only process; does not initialize JAX's devices."""
  return distributed.global_state.client is None


def is_first() -> bool:
  """Whether this process writes files and talks to the user."""
  return jax.process_index() == 0


def from_first(value: int) -> int:
  """The value given by the first process; all must call this, in the training thread."""
  return int(multihost_utils.broadcast_one_to_all(np.int32(value))) if jax.process_count() > 1 else value


def highest(value: int) -> int:
  """The largest value given by any process; likewise."""
  return int(multihost_utils.process_allgather(np.int32(value)).max()) if jax.process_count() > 1 else value


def barrier(name: str) -> None:
  """Waits for all processes; uses no device, so any thread may call it."""
  if jax.process_count() > 1:
    distributed.global_state.client.wait_at_barrier(f'{name}/{next(_turns)}', 1_000 * SECONDS)


def agree(facts: Mapping[str, str]) -> None:
  """Raises ConfigError in all processes if the facts of any differ from those of the first; all must call this.

  The error names the facts and the process; facts missing in either are not compared. Needs no device: each process
  reads the facts of the first, and then the findings of the others.
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
