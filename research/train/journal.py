"""What a run writes to its workdir: checkpoints, metrics, figures and the result."""

import contextlib
import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from research.errors import ConfigError
from research.parallel import processes
from research.tasks.base import State
from research.train.checkpoint import Checkpoints
from research.train.config import Config, flatten
from research.train.environment import changes
from research.train.modules import experiment_name
from research.train.patience import Patience
from research.train.recorder import NoRecorder, Recorder
from research.train.workdir import Workdir, tree_sha256, write_json
from research.types import PyTree


class Journal:
  """Writes to the workdir of a run; a context manager. See `NoJournal` for a run without a workdir.

  With many processes, each saves its shards of a checkpoint, and the first writes everything else.
  """

  def __init__(self, path: str | os.PathLike, config: Config):
    self._stack = contextlib.ExitStack()
    self._workdir = Workdir(path, config)
    self.path = self._workdir.path
    self.result: Mapping[str, Any] | None = None  # of a finished run, once restored

  def __enter__(self) -> 'Journal':
    with contextlib.ExitStack() as stack:
      config = stack.enter_context(self._workdir).config
      self._checkpoints = Checkpoints(self.path / 'checkpoints', config.keep_latest, config.keep_best)
      stack.callback(self._checkpoints.close)
      if processes.is_first() and not self._checkpoints.steps():
        self._workdir.check_start()
      self._stack = stack.pop_all()
    return self

  def __exit__(self, *exception):
    self._stack.close()

  def has_checkpoint(self) -> bool:
    """Whether there is a checkpoint, without verifying its files. All processes must call it."""
    return bool(processes.from_first(len(self._checkpoints.steps())))

  def restore(self, abstract: PyTree, fingerprints: Mapping[str, str], described: str) -> tuple[int, PyTree | None]:
    """Step and tree of the newest good checkpoint (0 and None where there is none); drops later lines.

    `described` is the text of network.json, which is written now.

    Raises ConfigError where the run has gone further than its config says now, DataError as `note_config` and
    `note_network`, and OSError where no checkpoint can be saved.
    """
    if processes.is_first():
      self._begin(fingerprints, described)
    self._checkpoints.try_out()  # before any training could be lost
    step, tree = self._checkpoints.restore({**abstract, 'lines': np.int32(0)}) or (0, None)
    lines = int(tree.pop('lines')) if tree else 0
    self.result = self._result_of(step, tree)
    recorder = NoRecorder()
    if processes.is_first() and self.result is None:
      self._workdir.drop_result()
      self._workdir.note_start(step, fingerprints, described)
      config = self._workdir.config
      recorder = Recorder(self.path, lines, step, flatten(config), experiment_name(config))
    self._recorder = self._stack.enter_context(recorder)
    return step, tree

  def _result_of(self, step: int, tree: PyTree | None) -> Mapping[str, Any] | None:
    """The content of result.json if the run has ended at `step`; only the first process learns the metrics."""
    config = self._workdir.config
    ended = step == config.steps or (tree and Patience.from_tree(tree['patience']).is_out(config.patience))
    result = self._workdir.result() if processes.is_first() and ended else None
    there = processes.from_first(int(result is not None and result['steps'] == step))
    return (result or {'metrics': {}}) if there else None

  def _begin(self, fingerprints: Mapping[str, str], described: str) -> None:
    done, steps = max(self._checkpoints.steps(), default=0), self._workdir.config.steps
    if done > steps:
      raise ConfigError(f'config.steps={steps}: {self.path} is at step {done}; give at least that, or another workdir')
    self._workdir.note_config(fingerprints)
    self._workdir.note_network(described)

  def save(self, step: int, tree: PyTree, score: float | None) -> None:
    """Saves in the background, once all lines so far are on disk."""
    self._workdir.check()
    self._checkpoints.save(step, {**tree, 'lines': np.int32(self._recorder.sync())}, score)

  def note_source(self, facts: Mapping[str, Any]) -> None:
    """Records in environment.json what was loaded from another run."""
    if processes.is_first():
      self._workdir.note_source(facts)

  def is_best(self, score: float) -> bool:
    """Whether a checkpoint with this score would be among the best to keep."""
    return self._checkpoints.is_best(score)

  def rescore(self, step: int, score: float) -> None:
    """Sets the score of the checkpoint of `step`, measured after it was saved."""
    self._checkpoints.rescore(step, score)

  def wait(self) -> None:
    """Waits for the current save."""
    self._checkpoints.wait()

  def write(self, step: int, values: Mapping[str, Any]) -> None:
    """Writes a line to metrics.jsonl."""
    self._recorder.write(step, values)

  def show(self, step: int, name: str, value: Any) -> None:
    """Writes a text or a figure."""
    self._recorder.show(step, name, value)

  def write_hash(self, step: int, state: State) -> None:
    """Writes a line with the hash of the State, for comparing runs."""
    self._recorder.write(step, {'state_sha256': tree_sha256(state)})

  def finish(self, result: Mapping[str, Any], state: State) -> None:
    """Writes result.json, as the last file."""
    self._workdir.check()
    self._recorder.sync()
    result = {**result, 'state_sha256': tree_sha256(state)}
    if processes.is_first():
      write_json(self.path / 'result.json', {**result, 'changes': changes(self._workdir.starts())})


class NoJournal(contextlib.nullcontext):
  """For a run without a workdir, as in a notebook: writes nothing."""

  path = ''
  result = None

  def __enter__(self) -> 'NoJournal':
    return self

  def has_checkpoint(self) -> bool:
    return False

  def restore(self, abstract, fingerprints, described) -> tuple[int, None]:
    return 0, None

  def is_best(self, score) -> bool:
    return False

  def save(self, step, tree, score) -> None: ...
  def note_source(self, facts) -> None: ...
  def rescore(self, step, score) -> None: ...
  def wait(self) -> None: ...
  def write(self, step, values) -> None: ...
  def show(self, step, name, value) -> None: ...
  def write_hash(self, step, state) -> None: ...
  def finish(self, result, state) -> None: ...
