"""Starting from another run's parameters: fine-tuning, a frozen backbone, a teacher."""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from absl import logging
from jax import Array
from jax import numpy as jnp

from research.errors import CheckpointError, ConfigError, alike
from research.parallel import processes
from research.paths import local
from research.tasks.base import LOSS_SCALE, State
from research.train.checkpoint import NONE, Checkpoints, by_name, described
from research.train.workdir import tree_sha256

# Where to look for a leaf of the new State, by its part of the State. EMA falls back to the parameters of a source
# without EMA; frozen leaves start from the source's evaluation variables.
ORIGINS = {
  'params': ('params', 'frozen'),
  'mutable': ('mutable', 'frozen'),
  'ema': ('ema', 'params', 'mutable', 'frozen'),
  'frozen': ('ema', 'params', 'mutable', 'frozen'),
}
SHOWN = 5  # paths of each kind in the log; environment.json has all


class Leaf(NamedTuple):
  """The location of an array in a State."""

  part: str  # part of the State: params, mutable, ema or frozen
  collection: str  # Linen collection: params, batch_stats, ...
  path: str  # within the collection: encoder/conv/kernel

  def __str__(self) -> str:
    """The name in a checkpoint."""
    return '/'.join(self[1:] if self.part == 'params' else self)


class Source(NamedTuple):
  """The source of a transfer: the State of a checkpoint."""

  workdir: Path
  step: int
  arrays: Mapping[str, np.ndarray]  # by name


class Transfer(NamedTuple):
  """The mapping from leaves of a source to leaves of a new State."""

  source: Source
  origins: Mapping[Leaf, Leaf]  # leaf of the source by leaf of the new State
  new: Sequence[Leaf]  # leaves of the new State that are not in the source
  left: Sequence[Leaf]  # unused leaves of the source

  def facts(self) -> dict[str, Any]:
    """For environment.json."""
    return {
      'workdir': str(self.source.workdir),
      'step': self.source.step,
      'state_sha256': tree_sha256(self.source.arrays),
      'taken': {str(leaf): str(origin) for leaf, origin in self.origins.items()},
      'new': list(map(str, self.new)),
      'left': list(map(str, self.left)),
    }


def check_source(workdir: str) -> None:
  """Raises CheckpointError if a folder has no checkpoint, without verifying files."""
  if not _checkpoints(workdir).steps():
    raise _no_checkpoint(workdir)


def read_source(workdir: str) -> Source:
  """The State of the newest valid checkpoint of a run, read-only. Raises CheckpointError if there is none."""
  checkpoints = _checkpoints(workdir)
  step = processes.from_first(checkpoints.newest_good() if processes.is_first() else NONE)
  if step == NONE:
    raise _no_checkpoint(workdir)
  restored = checkpoints.restore_named(('state/',), step)
  if restored is None:  # the run, still going on, has deleted it meanwhile
    raise _no_checkpoint(workdir)
  _, arrays = restored
  return Source(local(workdir), step, {name.removeprefix('state/'): array for name, array in arrays.items()})


def plan(source: Source, state: State, init_map: Sequence[str]) -> Transfer:
  """The transfer from a source to `state`, with abstract leaves.

  Raises ConfigError for an entry of `init_map` without effect, and CheckpointError for a leaf of another shape.
  """
  there, here = _leaves(source.arrays), _leaves(by_name(state))
  origins: dict[Leaf, Leaf] = {}
  for entry in init_map or ('*=*',):
    found = dict(_matches(entry, here, there))
    if not found:
      raise ConfigError(_nothing_taken(entry if init_map else '', here, there, source.workdir))
    origins = {**found, **origins}  # the first matching entry counts
  for leaf, origin in origins.items():
    old, new = described(there[origin]), described(here[leaf])
    if old != new:
      raise CheckpointError(
        f'config.init_from={source.workdir}: {origin} is {old} there, but {leaf} is {new} in this run; '
        'change the model, or name what to take in config.init_map'
      )
  used = set(origins.values())
  return Transfer(
    source, origins, [leaf for leaf in here if leaf not in origins], [leaf for leaf in there if leaf not in used]
  )


def transferred(transfer: Transfer, state: State) -> State:
  """`state` with leaves from the source, in the same sharding. Logs which are loaded, new and unused."""
  source = transfer.source
  taken = {str(leaf): source.arrays[str(origin)] for leaf, origin in transfer.origins.items()}
  logging.info(
    'config.init_from=%s, step %d: loaded %s; newly initialized %s; unused %s',
    *(source.workdir, source.step, _listed(transfer.origins), _listed(transfer.new), _listed(transfer.left)),
  )

  def replaced(path: tuple, leaf: Array) -> Array:
    name = jax.tree_util.keystr(path, simple=True, separator='/')
    if name not in taken:
      return leaf
    placed = jax.make_array_from_callback(leaf.shape, leaf.sharding, lambda index: taken[name][index])
    return jnp.copy(placed)  # a separate buffer: two leaves may share an origin, and a step donates them all

  return jax.tree.map_with_path(replaced, state)


def _checkpoints(workdir: str) -> Checkpoints:
  return Checkpoints(local(workdir, 'config.init_from') / 'checkpoints')


def _no_checkpoint(workdir: str) -> CheckpointError:
  return CheckpointError(
    f'config.init_from={workdir}: has no usable checkpoint; give the workdir of a run that has saved one'
  )


def _leaves(named: Mapping[str, Any]) -> dict[Leaf, Any]:
  """The leaves of a State that can be transferred: all but step, optimizer state and loss scale."""
  leaves = {}
  for name, array in named.items():
    part, _, rest = name.partition('/')
    collection, _, path = name.partition('/') if part == 'params' else rest.partition('/')
    if part in ORIGINS and collection != LOSS_SCALE:
      leaves[Leaf(part, collection, path)] = array
  return leaves


def _matches(entry: str, here: Mapping[Leaf, Any], there: Mapping[Leaf, Any]) -> Iterator[tuple[Leaf, Leaf]]:
  """Leaves of the new State, and their origins by an entry of the map."""
  source, _, target = entry.partition('=')
  for leaf in here:
    if match := re.fullmatch(_regex(target), leaf.path):
      path = _filled(source, match.groups())
      candidates = (Leaf(part, leaf.collection, path) for part in ORIGINS[leaf.part])
      if origin := next((candidate for candidate in candidates if candidate in there), None):
        yield leaf, origin


def _regex(pattern: str) -> str:
  return '(.*)'.join(map(re.escape, pattern.split('*')))


def _filled(pattern: str, texts: Sequence[str]) -> str:
  """`pattern` with each asterisk replaced by a text."""
  first, *rest = pattern.split('*')
  return first + ''.join(text + part for text, part in zip(texts, rest, strict=True))


def _nothing_taken(entry: str, here: Mapping[Leaf, Any], there: Mapping[Leaf, Any], workdir: Path) -> str:
  """The message for an entry without effect; '' stands for no map at all, where no path is in both."""
  ours, theirs = ([leaf.path for leaf in leaves] for leaves in (here, there))
  if not entry:
    return f'config.init_from={workdir}: has none of the paths of this model; {_nearest(ours[0], theirs)}; see init_map'
  source, _, target = entry.partition('=')
  for pattern, paths, whose in ((source, theirs, workdir), (target, ours, 'this model')):
    if not any(re.fullmatch(_regex(pattern), path) for path in paths):
      return f'config.init_map: {entry!r}: {whose} has nothing at {pattern}; {_nearest(pattern, paths)}'
  path = next(path for path in ours if re.fullmatch(_regex(target), path))
  wanted = _filled(source, re.fullmatch(_regex(target), path).groups())
  return f'config.init_map: {entry!r}: {workdir} has no {wanted} for {path} of this model; {_nearest(wanted, theirs)}'


def _nearest(pattern: str, paths: Sequence[str]) -> str:
  """The nearest paths, or beginnings of paths that are as deep as the pattern: conv_0 for con_*."""
  depth = pattern.count('/') + 1
  beginnings = list(dict.fromkeys('/'.join(path.split('/')[:depth]) for path in paths))
  return f'nearest: {", ".join(alike(pattern, beginnings) or beginnings[:3])}'


def _listed(leaves: Sequence[Leaf] | Mapping[Leaf, Leaf]) -> str:
  """The number of leaves, and the first of them."""
  names = list(map(str, leaves))
  more = ', ...' if len(names) > SHOWN else ''
  return f'{len(names)} ({", ".join(names[:SHOWN])}{more})' if names else '0'
