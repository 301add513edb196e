"""The training loop: a generator that yields a record whenever something is logged or about to happen.

The order within a step is a contract: batch -> step -> log (fetched one step late, so that nothing waits) -> evaluate
-> checkpoint. All randomness in a step is a function of (seed, step), so a run that was killed and restarted ends
bitwise the same as an uninterrupted one.
"""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import jax
from absl import logging

from research.data.feed import make_feed
from research.parallel.mesh import make_mesh
from research.paths import local
from research.train.config import Config, check_built
from research.train.experiment import Experiment, checked
from research.train.journal import Journal, NoJournal
from research.train.optimizer import cut_short
from research.train.profile import Profile
from research.train.run import Interrupted, Record, Run
from research.train.signals import Stop, Stopped
from research.train.transfer import check_source
from research.train.workdir import agree_on_run


def train(
  config: Config,
  workdir: str | os.PathLike = '',
  stop: Stop | None = None,
  *,
  experiment: Experiment | None = None,
  profile: tuple[int, int] = (0, 0),
) -> Iterator[Record]:
  """Trains from the newest checkpoint in `workdir`, or from the start; without a workdir nothing is written.

  The experiment is `config.build()`, once the config is validated and the workdir locked, unless one built from this
  config is given. Signals are handled while a record is computed, and are the caller's in between; a program that
  handles them throughout enters its own `stop`.

  Raises:
    ConfigError, WorkdirError: before any data are downloaded, except for what needs the model's shapes.
    CheckpointError: `init_from` has no valid checkpoint, or a checkpoint is of another model.
    DataError: before anything is compiled.
    NotFiniteError: metrics were NaN or infinite; the last valid checkpoint is kept.
    Interrupted: SIGINT, SIGTERM or SIGHUP arrived, and everything was saved.

  profile: the first step and the number of steps that `jax.profiler` traces into the workdir.
  """
  workdir = local(workdir, 'workdir') if workdir else ''  # now, as the current folder may change
  traced = Profile(*profile, folder=Path(workdir) / 'profile')
  if stop is not None:
    return _records(config, workdir, stop, experiment, traced)
  stop = Stop(alone=jax.process_count() == 1)
  return stop.around(_records(config, workdir, stop, experiment, traced))


def _records(
  config: Config, workdir: str | os.PathLike, stop: Stop, experiment: Experiment | None, profile: Profile
) -> Iterator[Record]:
  agree_on_run(config, workdir)
  config.validate()
  profile.check(config.steps, workdir)
  mesh = make_mesh(config.mesh, config.batch_size, config.accumulate)
  with contextlib.ExitStack() as stack:
    journal = stack.enter_context(Journal(workdir, config) if workdir else NoJournal())
    if config.init_from and not journal.has_checkpoint():
      check_source(config.init_from)
    experiment = experiment or _built(config, stop, journal.path)
    check_built(experiment, config)
    experiment = checked(experiment)
    feed = stack.enter_context(make_feed(experiment.train, mesh, config.loader_threads))
    run = Run(experiment, config, mesh, feed, journal, stop, stack.enter_context(profile))
    if note := cut_short(config.optimizer, config.steps):
      logging.warning(note)
    yield from run.begin()
    if run.result is not None:  # finished by an earlier start
      yield run.tell('done', run.result['metrics'])
      return
    yield from run.evaluate_if_due()  # if a signal postponed it
    yield from run.save_if_due()
    while not run.ended:
      run.advance()
      yield from run.log_if_due()
      yield from run.evaluate_if_due()
      yield from run.save_if_due()
    yield from run.finish()


def _built(config: Config, stop: Stop, workdir: str | os.PathLike) -> Experiment:
  """The config's experiment. A signal while its data are downloaded ends the run, with nothing to save yet."""
  try:
    with stop.interrupting():
      return config.build()
  except Stopped:
    raise Interrupted(stop.signum, 'while building the experiment', workdir, saved=False) from None
