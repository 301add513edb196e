"""Checkpoints: written by Orbax in the background, and verified bitwise by a manifest.

A checkpoint is written to `unfinished/`, including its manifest, and becomes `<step>/` by a rename; it is dropped by a
rename back. So `<step>/` is complete at any instant, and a killed process leaves files only in `unfinished/`, which the
next save deletes. A damaged checkpoint is moved to `set_aside/` and never deleted.
"""

import contextlib
import itertools
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from logging import getLogger
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import logging
from jax import numpy as jnp
from orbax.checkpoint import v1 as ocp

from research.errors import CheckpointError, naming, shortened
from research.parallel import processes
from research.train import manifest
from research.types import PyTree

UNFINISHED = 'unfinished'
SET_ASIDE = 'set_aside'
NONE = -1  # no step


class Checkpoints:
  """The checkpoints of a folder; keeps the `keep_latest` latest and the `keep_best` with the highest scores."""

  def __init__(self, folder: Path, keep_latest: int = 2, keep_best: int = 1):
    self.folder = Path(folder).absolute()
    self.keep_latest = keep_latest
    self.keep_best = keep_best
    self._writer = ThreadPoolExecutor(max_workers=1, thread_name_prefix='checkpoint')
    self._pending: Future | None = None

  def save(self, step: int, tree: PyTree, score: float | None = None) -> None:
    """Copies a tree of arrays to the host and writes it in the background, replacing an older one of `step`.

    The arrays may be donated on return. Waits for the previous save; raises OSError if that failed. With many processes
    it also waits for this save, to keep Orbax's communication apart from that of the next steps.
    """
    self.wait()
    self._pending = self._writer.submit(self._write, step, _to_host(tree), score)
    if jax.process_count() > 1:
      self.wait()

  def try_out(self) -> None:
    """Saves and restores a number, leaving nothing behind. Raises OSError if that fails."""
    unfinished, tree = self.folder / UNFINISHED, {'number': np.ones(1, np.float32)}
    with _as_os_error(self.folder):
      self._begin_unfinished()
      _save(unfinished / 'tried', tree)
      _load(unfinished / 'tried', tree)
      processes.barrier('tried')
      if processes.is_first():
        shutil.rmtree(unfinished)

  def is_best(self, score: float) -> bool:
    """Whether a checkpoint with this score would be among the best to keep; all processes must call it."""
    self.wait()
    best = processes.is_first() and score > -np.inf and sum(other >= score for other in self._scores()) < self.keep_best
    return bool(processes.from_first(int(best)))

  def rescore(self, step: int, score: float) -> None:
    """Sets the score of the checkpoint of `step`, measured after the save, and prunes checkpoints."""
    self.wait()
    if processes.is_first():
      unfinished = self.folder / UNFINISHED
      unfinished.mkdir(exist_ok=True)
      manifest.update(self._path(step), unfinished / manifest.NAME, score=_number(score))
      self._prune()
      shutil.rmtree(unfinished)

  def wait(self) -> None:
    """Waits until the last save can be restored. Raises OSError if it failed."""
    pending, self._pending = self._pending, None
    if pending is not None:
      pending.result()

  def close(self) -> None:
    """Waits, and ends the writer thread. Raises OSError if the last save failed."""
    self._writer.shutdown()
    self.wait()

  def steps(self) -> list[int]:
    """Steps with a manifest, ascending, without verifying their files."""
    return [step for step in self._found() if (self._path(step) / manifest.NAME).is_file()]

  def newest_good(self) -> int:
    """The newest step whose files match their manifest, or NONE. Moves nothing, and one process may call it alone."""
    for step in reversed(self.steps()):
      try:
        manifest.verify(self._path(step))
        return step
      except (manifest.DamagedError, FileNotFoundError) as error:
        logging.warning('Checkpoint of step %d is damaged: %s. An older one is used.', step, error)
    return NONE

  def restore(
    self, abstract: PyTree, step: int = -1, best: bool = False, set_aside: bool = True, part: bool = False
  ) -> tuple[int, PyTree] | None:
    """Step and tree of the newest checkpoint, of the best or of `step`; None if none is usable.

    abstract: tree of `jax.ShapeDtypeStruct`; leaves with a sharding become `jax.Array`, others NumPy arrays.
    set_aside: move damaged checkpoints out of the way, with a warning, and use the previous one. If False, the
      folder is only read, and a damaged checkpoint is an error.
    part: leave out what `abstract` does not have.
    Raises CheckpointError: damaged (as above), of another model, or no such `step` or score.
    """
    self.wait()
    chosen = self._choose(abstract, step, best, set_aside, part) if processes.is_first() else NONE
    chosen = processes.from_first(chosen)  # the others read what the first one verified
    return None if chosen == NONE else (chosen, _load(self._path(chosen), abstract))

  def restore_named(self, prefixes: tuple[str, ...], step: int = -1, best: bool = False) -> tuple[int, PyTree] | None:
    """Step and NumPy arrays, by name, of all leaves under `prefixes`; see `restore` for the rest.

    Shapes and dtypes come from the checkpoint itself, so no model is needed.
    """
    chosen = self._choose({}, step, best, set_aside=False, part=True)
    if chosen == NONE:
      return None
    leaves = manifest.read(self._path(chosen))['leaves']
    return chosen, _load(self._path(chosen), {n: _abstract(leaves[n]) for n in leaves if n.startswith(prefixes)})

  def _choose(self, abstract: PyTree, step: int, best: bool, set_aside: bool, part: bool) -> int:
    """The step that `restore` should read, or NONE."""
    found = self._found()
    if step >= 0 and step not in found:
      raise CheckpointError(f'{self.folder} has no checkpoint of step {step}; {_listed(found)}')
    wanted = [step] if step >= 0 else self._best(found, set_aside) if best else found[::-1]
    for candidate in wanted:
      if facts := self._verified(candidate, set_aside):
        _match(self._path(candidate), facts['leaves'], abstract, part)
        return candidate
    if found:
      logging.warning('%s: no usable checkpoint is left', self.folder)
    return NONE

  def _write(self, step: int, tree: PyTree, score: float | None) -> None:
    unfinished = self.folder / UNFINISHED / str(step)
    with _as_os_error(self._path(step)):
      self._begin_unfinished()
      _save(unfinished, tree)
      if processes.is_first():
        manifest.write(unfinished, step=step, score=_number(score), leaves=_described(tree))
        self._drop(step)
        unfinished.rename(self._path(step))
        manifest.sync(self.folder)
        self._prune()
        shutil.rmtree(unfinished.parent)
      processes.barrier('saved')

  def _begin_unfinished(self) -> None:
    """Creates the folder to save in, without leftovers of a killed process."""
    if processes.is_first():
      shutil.rmtree(self.folder / UNFINISHED, ignore_errors=True)
      (self.folder / UNFINISHED).mkdir(parents=True, exist_ok=True)
    processes.barrier('save')

  def _prune(self) -> None:
    """Drops checkpoints that are neither among the latest nor the best; damaged ones do not count."""
    found = self._found()
    if len(found) <= self.keep_latest:
      return
    scores = {step: facts['score'] for step in found if (facts := self._verified(step, set_aside=True))}
    keep = sorted(scores, reverse=True)[: self.keep_latest] + _ranked(scores)[: self.keep_best]
    for step in scores.keys() - set(keep):
      self._drop(step)

  def _drop(self, step: int) -> None:
    """Moves a checkpoint to where the save deletes it, so that it is never seen half deleted."""
    if self._path(step).exists():
      self._path(step).rename(self.folder / UNFINISHED / f'{step}-dropped')

  def _scores(self) -> Iterator[float]:
    """Scores of the existing checkpoints, without verifying their files."""
    for step in self.steps():
      with contextlib.suppress(manifest.DamagedError):
        if (score := manifest.read(self._path(step))['score']) is not None:
          yield score

  def _best(self, found: list[int], set_aside: bool) -> list[int]:
    scores = {step: facts['score'] for step in found if (facts := self._verified(step, set_aside))}
    ranked = _ranked(scores)
    if scores and not ranked:
      raise CheckpointError(f'{self.folder} has no checkpoint with a score; {_listed(list(scores))}')
    return ranked

  def _verified(self, step: int, set_aside: bool) -> dict[str, Any] | None:
    """The manifest; None if damaged and set aside. Raises CheckpointError if it must not be moved."""
    try:
      return manifest.verify(self._path(step))
    except (manifest.DamagedError, FileNotFoundError) as error:
      if not self._path(step).exists():  # dropped meanwhile, by the run itself
        return None
      if not set_aside:
        others = [other for other in self.steps() if other != step]
        raise CheckpointError(f'checkpoint of step {step} is damaged: {error}; {_listed(others)}') from error
      self._set_aside(step, error)
      return None

  def _set_aside(self, step: int, error: Exception) -> None:
    folder = self.folder / SET_ASIDE
    folder.mkdir(exist_ok=True)
    target = next(path for n in itertools.count() if not (path := folder / f'{step}-{n}').exists())
    self._path(step).rename(target)
    logging.warning('Checkpoint of step %d is damaged: %s. Set aside as %s.', step, error, target)

  def _found(self) -> list[int]:
    names = [path.name for path in self.folder.iterdir()] if self.folder.is_dir() else []
    return sorted(int(name) for name in names if name.isdecimal())

  def _path(self, step: int) -> Path:
    return self.folder / str(step)


def _to_host(tree: PyTree) -> PyTree:
  """A host copy that is safe from donation and in-place changes; on CPU a NumPy view shares memory."""
  for leaf in jax.tree.leaves(tree):
    if isinstance(leaf, jax.Array) and leaf.is_fully_addressable:
      leaf.copy_to_host_async()
  return jax.tree.map(_copy, tree)


def _copy(leaf: Any) -> np.ndarray | jax.Array:
  if isinstance(leaf, jax.Array) and not (leaf.is_fully_addressable or leaf.is_fully_replicated):
    return jnp.copy(leaf)  # each process writes its own shards
  return np.array(leaf)


def _save(path: Path, tree: PyTree) -> None:
  leaves = {name: leaf for name, leaf in by_name(tree).items() if leaf.size}  # Orbax refuses empty arrays
  context = ocp.Context()
  context.array.saving.use_compression = False  # saves little on weights, and takes time
  with context, _orbax_unheard(), _without_patterns(path) as path:
    ocp.save(path, leaves)


@contextlib.contextmanager
def _without_patterns(path: Path) -> Iterator[Path]:
  """Another path to the same folder if Orbax would treat it as a glob pattern, or cannot encode it.

  Many processes must give Orbax the same path; `try_out` detects if that fails.
  """
  if jax.process_count() > 1 or not re.search(r'[*?\[\\\ud800-\udfff]', str(path)):
    yield path
    return
  with tempfile.TemporaryDirectory() as folder:
    link = Path(folder) / 'link'
    link.symlink_to(path.parent)
    yield link / path.name


@contextlib.contextmanager
def _orbax_unheard() -> Iterator[None]:
  """Silences Orbax, which also prints the error it raises from each of its threads and event loops."""

  def not_orbax(record):
    return 'orbax' not in Path(record.pathname).parts

  def not_asyncio(fault):
    if 'Event loop is closed' not in str(fault.exc_value):
      hook(fault)

  logger, hook = logging.get_absl_logger(), sys.unraisablehook
  logger.addFilter(not_orbax)
  sys.unraisablehook = not_asyncio
  try:
    yield
  except Exception:  # Orbax's leftover tasks complain later: keep the hook
    getLogger('asyncio').setLevel('CRITICAL')
    raise
  else:
    sys.unraisablehook = hook
  finally:
    logger.removeFilter(not_orbax)


@contextlib.contextmanager
def _as_os_error(path: Path) -> Iterator[None]:
  """Turns exceptions of Orbax into an OSError that names a file."""
  try:
    with naming(path):
      yield
  except OSError:
    raise
  except Exception as error:
    raise _os_error(error, path) from error


def _os_error(error: Exception, path: Path) -> OSError:
  """The system's error: tensorstore reports a full disk as a ValueError with the errno."""
  code = re.search(r"os_error_code='(\d+)'", str(error))
  if code is None:
    return OSError(f'{path} could not be saved: {shortened(error)}')
  return OSError(int(code[1]), os.strerror(int(code[1])), str(path))


def _load(path: Path, abstract: PyTree) -> PyTree:
  leaves, context = by_name(abstract), ocp.Context()
  context.pytree.loading.partial_load = True  # saved and requested leaves have been compared
  try:
    with context, _without_patterns(path) as plain:
      loaded = ocp.load(plain, {name: _target(leaf) for name, leaf in leaves.items() if leaf.size})
  except ValueError as error:  # its manifest matches, so it never was a checkpoint
    raise CheckpointError(f'{path} cannot be read by Orbax; remove it or use a new workdir') from error
  values = [loaded[name] if leaf.size else _zeros(leaf) for name, leaf in leaves.items()]
  return jax.tree.unflatten(jax.tree.structure(abstract), values)


def _target(leaf: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct | np.ndarray:
  """A template that tells Orbax which kind of array to restore."""
  on_device = getattr(leaf, 'sharding', None) is not None
  return leaf if on_device else np.broadcast_to(np.zeros((), leaf.dtype), leaf.shape)


def _zeros(leaf: jax.ShapeDtypeStruct) -> np.ndarray | jax.Array:
  zeros, sharding = np.zeros(leaf.shape, leaf.dtype), getattr(leaf, 'sharding', None)
  return zeros if sharding is None else jax.device_put(zeros, sharding)


def by_name(tree: PyTree) -> dict[str, Any]:
  """Leaves by their path, such as `state/params/dense_0/kernel`."""
  leaves = jax.tree.leaves_with_path(tree)
  named = {jax.tree_util.keystr(path, simple=True, separator='/'): leaf for path, leaf in leaves}
  if len(named) != len(leaves):
    raise ValueError('two leaves of the tree have the same path')
  return named


def _described(tree: PyTree) -> dict[str, str]:
  """Dtype and shape by name of leaf."""
  return {name: described(leaf) for name, leaf in by_name(tree).items()}


def described(leaf: Any) -> str:
  """Dtype and shape of an array: `float32[3, 4]`."""
  return f'{np.dtype(leaf.dtype).name}{list(leaf.shape)}'


def _abstract(description: str) -> jax.ShapeDtypeStruct:
  """The inverse of `described`."""
  dtype, _, shape = description.rstrip(']').partition('[')
  return jax.ShapeDtypeStruct(tuple(int(size) for size in shape.split(',') if size), np.dtype(dtype))


def _match(path: Path, saved: Mapping[str, str], abstract: PyTree, part: bool) -> None:
  """Raises CheckpointError that names the first different leaf; Orbax would silently cast it."""
  wanted = _described(abstract)
  # Optimizer leaves follow the model's: report them only if no others differ.
  names = wanted.keys() if part else saved.keys() | wanted.keys()
  for name in sorted(names, key=lambda name: ('/opt_state/' in name, name)):
    there, here = saved.get(name, 'missing'), wanted.get(name, 'missing')
    if there != here:
      what = 'optimizer' if '/opt_state/' in name else 'model'
      difference = f'{name} is {there} there and {here} in this run'
      raise CheckpointError(f'{path} is of another {what}: {difference}; remove it or use a new workdir')


def _number(score: float | None) -> float | None:
  return None if score is None or np.isnan(score) else float(score)


def _ranked(scores: Mapping[int, float | None]) -> list[int]:
  """Steps with a score, best first; ties by latest."""
  scored = [(score, step) for step, score in scores.items() if score is not None]
  return [step for _, step in sorted(scored, reverse=True)]


def _listed(steps: list[int]) -> str:
  return 'there are steps ' + ', '.join(map(str, steps)) if steps else 'there is no other'
