"""Reads a State out of a run's workdir, in another process or a notebook, also while the run goes on."""

import os
from pathlib import Path

import jax
import numpy as np

from research.errors import CheckpointError
from research.tasks.base import State
from research.train.checkpoint import Checkpoints
from research.train.config import Config
from research.train.experiment import Experiment
from research.train.mesh import make_mesh, replicated
from research.train.run import first_state, to_save


def restore_state(
  experiment: Experiment, config: Config, workdir: str | os.PathLike, step: int = -1, best: bool = False
) -> tuple[int, State]:
  """Step and State of the newest checkpoint in `workdir`, of the best or of `step`; writes nothing there.

  The config is `research.train.workdir.load_config(workdir)`, and the experiment `config.build()`.
  Raises CheckpointError: none is there, not that one, it is damaged or of another model.
  """
  checkpoints = Checkpoints(Path(workdir) / 'checkpoints')
  abstract = {**_abstract(experiment, config), 'lines': np.int32(0)}
  restored = checkpoints.restore(abstract, step, best, set_aside=False)
  if restored is None:
    raise CheckpointError(f'workdir {workdir}: has no checkpoint yet; wait for the first one')
  return restored[0], restored[1]['state']


def _abstract(experiment: Experiment, config: Config) -> dict:
  # Evaluation pads its batches, so those local devices that there are will do.
  mesh = make_mesh(min(config.devices, jax.local_device_count()), batch_size=0)
  index = experiment.train.indices(0)
  batch = {**experiment.train.examples.rows(index), 'index': index}
  shapes = jax.eval_shape(lambda key: first_state(experiment.task, batch, key), jax.random.key(config.seed))
  place = replicated(mesh)
  return to_save(*jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place), shapes))
