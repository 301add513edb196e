"""Restores a State from a workdir, in another process or a notebook, even while the run continues."""

import os
from pathlib import Path

import jax
from flax import traverse_util

from research.errors import CheckpointError, ConfigError
from research.parallel.layout import abstract, layout
from research.parallel.mesh import MeshShape, make_mesh
from research.paths import local
from research.tasks.base import State, evaluation_variables
from research.tasks.network import Network
from research.train.checkpoint import Checkpoints
from research.train.config import Config
from research.train.description import Shapes, load_description
from research.train.experiment import Experiment
from research.train.workdir import saved_config
from research.types import PyTree


def parse_checkpoint(text: str, workdir: Path) -> int:
  """The step given by --checkpoint, or -1 for 'best' and 'latest'. Raises ConfigError that lists the steps."""
  if text not in ('best', 'latest') and not text.isdecimal():
    steps = ', '.join(map(str, Checkpoints(workdir / 'checkpoints').steps())) or 'none yet'
    raise ConfigError(f'--checkpoint={text}: must be best, latest or a step of {workdir}: {steps}')
  return int(text) if text.isdecimal() else -1


def restore_state(
  experiment: Experiment, config: Config, workdir: str | os.PathLike, step: int = -1, best: bool = False
) -> tuple[int, State]:
  """Step and State of the newest checkpoint in `workdir`, of the best or of `step`; writes nothing there.

  The config is `research.train.workdir.saved_config(workdir)`, and the experiment `config.build()`; none of its
  examples are read.

  Raises:
    CheckpointError: none is there, not that one, it is damaged or of another model.
    WorkdirError: network.json is missing or damaged.
  """
  checkpoints = Checkpoints(local(workdir, 'workdir') / 'checkpoints')
  if not checkpoints.steps():
    raise _no_checkpoint(workdir)
  abstract = {'state': _abstract(experiment, config, load_description(workdir).batch(config.batch_size))}
  restored = checkpoints.restore(abstract, step, best, set_aside=False, part=True)
  if restored is None:
    raise _no_checkpoint(workdir)
  step, tree = restored
  return step, tree['state']


def restore_network(workdir: str | os.PathLike) -> tuple[Network, Shapes]:
  """The network of a run in evaluation mode, and the shapes of its raw inputs for one example; reads no data.

  `network(restore_variables(workdir)[1], batch)` returns the outputs for raw inputs [batch, ...].
  """
  config, described = saved_config(workdir), load_description(workdir)
  return config.network(described.fitted).computing_in(config.precision), described.inputs


def restore_variables(workdir: str | os.PathLike, step: int = -1, best: bool = False) -> tuple[int, PyTree]:
  """Step and the Linen variables for sampling, as NumPy arrays, from a checkpoint alone.

  Needs neither data nor model; for the choice of checkpoint and exceptions see `restore_state`.
  """
  prefixes = tuple(f'state/{part}/' for part in ('params', 'ema', 'mutable', 'frozen'))
  restored = Checkpoints(local(workdir, 'workdir') / 'checkpoints').restore_named(prefixes, step, best)
  if restored is None:
    raise _no_checkpoint(workdir)
  step, leaves = restored
  parts = traverse_util.unflatten_dict(leaves, sep='/')['state']
  return step, evaluation_variables(State(step, **parts))


def _no_checkpoint(workdir: str | os.PathLike) -> CheckpointError:
  return CheckpointError(f'workdir {workdir}: has no checkpoint yet; wait for the first one')


def _abstract(experiment: Experiment, config: Config, batch: Shapes) -> State:
  """Shapes of the State on the config's mesh, or on all local devices if there are too few for it."""
  try:
    mesh = make_mesh(config.mesh, batch_size=0)  # evaluation pads its batches
  except ConfigError:
    mesh = make_mesh(MeshShape(), batch_size=0)
  init, key = experiment.task.init, jax.random.key(config.seed)
  return abstract(jax.eval_shape(init, key, batch), layout(init, mesh, key, batch))
