"""A trace of a few steps by `jax.profiler`, for XProf, TensorBoard or Perfetto."""

import contextlib
import os
from pathlib import Path
from typing import Any

import jax
from absl import logging

from research.errors import ConfigError


class Profile(contextlib.AbstractContextManager):
  """Traces `count` steps from step `first` on into `folder`; none where `count` is 0."""

  def __init__(self, first: int = 0, count: int = 0, folder: Path = Path()):
    self._steps, self._folder, self._running, self._traced = range(first, first + count), folder, False, False

  def __exit__(self, *exception) -> None:
    if self._running:
      self._stop()
    if self._steps and not self._traced:
      logging.warning(f'profile: this start took none of the steps {self._steps[0]} to {self._steps[-1]}')

  def check(self, steps: int, workdir: str | os.PathLike) -> None:
    """Raises ConfigError where a run has no workdir, or not the steps that are to be traced."""
    if self._steps and not workdir:
      raise ConfigError('profile: a trace is written into the workdir, and this run has none; give one')
    if self._steps and not (self._steps[0] > 0 and self._steps[-1] <= steps):
      asked = f'profile={self._steps[0]}:{len(self._steps)}'
      raise ConfigError(f'{asked}: the run has the steps 1 to {steps:,}; give the first step and how many to trace')

  def before(self, step: int) -> None:
    """To be called before each step."""
    if step in self._steps and not self._running:
      jax.profiler.start_trace(self._folder)
      self._running = True

  def after(self, step: int, results: Any) -> None:
    """To be called after each step, with arrays that exist once the devices have taken it."""
    if self._running and step == self._steps[-1]:
      jax.block_until_ready(results)
      self._stop()

  def _stop(self) -> None:
    self._running, self._traced = False, True
    jax.profiler.stop_trace()
    logging.info('steps %d to %d are traced in %s', self._steps[0], self._steps[-1], self._folder)
