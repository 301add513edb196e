"""A run in progress: its State, and the operations that the loop calls in order."""

import contextlib
import math
import numbers
import os
import signal
import time
import types
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import flax
import jax
import jax.numpy as jnp
import numpy as np
from absl import logging
from jax import Array
from jax.sharding import Mesh

from research import metrics as means
from research import random
from research.data.feed import Feed
from research.errors import NotFiniteError, RunError, failure, told
from research.metrics import Metrics
from research.parallel.backend import on_mesh
from research.parallel.layout import abstract
from research.parallel.mesh import replicated
from research.parallel.placement import InFlight
from research.tasks.base import State, Task, in_dtypes_of
from research.train.config import Config
from research.train.debug import first_not_finite, jax_checks, unguarded
from research.train.environment import device
from research.train.experiment import EvalFn, Experiment, describe
from research.train.journal import Journal, NoJournal
from research.train.patience import NO_SCORE_YET, Patience
from research.train.profile import Profile
from research.train.signals import Stop, Stopped
from research.train.transfer import Transfer, plan, read_source, transferred
from research.types import Batch, PyTree

EMPTY: Mapping[str, float] = types.MappingProxyType({})
HASHED_STEPS = (0, 1, 10, 100)  # steps at which runs are compared


class Record(NamedTuple):
  """A record of the loop: the metrics of a step, or with empty `metrics` what it is about to do."""

  step: int
  metrics: Mapping[str, float]
  status: str  # compiling, training, evaluating, saving or done
  state: State | None  # the newest, maybe a step ahead; valid until the generator continues and donates it
  note: str = ''  # lines to keep on the screen


@flax.struct.dataclass
class Running:
  """Totals since the last log, and the first step with non-finite metrics (0 = none)."""

  metrics: Metrics
  bad_step: Array


class Interrupted(RunError):
  """A signal stopped the run."""

  def __init__(self, signum: int, when: str, workdir: str | os.PathLike, saved: bool = True):
    kept = f'a checkpoint is in {workdir}' if saved else f'nothing new to save in {workdir}'
    kept = f'{kept}; run the same command again to resume' if workdir else 'it had no workdir'
    super().__init__(f'stopped by {signal.Signals(signum).name} {when}: {kept}')
    self.exit_code = 128 + signum


def make_step(task: Task, feed: Feed) -> Callable[[State, Running, Any, Array], tuple[State, Running]]:
  """The step to compile, which makes its batch and noise as functions of the step number."""

  def step(state: State, running: Running, inputs: Any, key: Array) -> tuple[State, Running]:
    batch = feed.batch(inputs, state.step)
    after, metrics = task.train_step(state, batch, random.stream(key, 'train', state.step))
    state = in_dtypes_of(state, after)
    bad_step = jnp.where((running.bad_step == 0) & ~_all_finite(metrics), state.step, running.bad_step)
    return state, Running(means.add(running.metrics, metrics), bad_step)

  return step


def first_state(task: Task, batch: Batch, key: Array) -> tuple[State, Running]:
  """The initial State; `key` is the run's."""
  state = task.init(random.stream(key, 'init'), batch)
  metrics = jax.eval_shape(task.train_step, state, batch, key)[1]
  zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), metrics)
  return state, Running(zeros, jnp.zeros((), jnp.int32))


def to_save(
  state: State, running: Running, evaluated: bool = False, seconds: float = 0.0, patience: Patience = NO_SCORE_YET
) -> dict[str, PyTree]:
  """The tree of a checkpoint, except what the journal adds; also with abstract leaves, for restoring."""
  clock = {'evaluated': np.bool(evaluated), 'seconds': np.float32(seconds)}
  return {'state': state, 'running': running, **clock, 'patience': patience.to_tree()}


def _values_of(schedules: Mapping[str, Callable[[Array], Array]]) -> Callable[[Array], dict[str, Array]]:
  def scheduled(step: Array) -> dict[str, Array]:
    return {name: jnp.asarray(schedule(step)) for name, schedule in schedules.items()}

  return scheduled


def _all_finite(tree: PyTree) -> Array:
  return jax.tree.reduce(jnp.logical_and, jax.tree.map(lambda leaf: jnp.isfinite(leaf).all(), tree), True)


def _checked(state: State) -> PyTree:
  """What must stay finite; statistics of an optimizer need not."""
  return state.params, state.mutable, state.memory


class Run:
  """The operations of `train`: a method for each part of its contract."""

  def __init__(
    self,
    experiment: Experiment,
    config: Config,
    mesh: Mesh,
    feed: Feed,
    journal: Journal | NoJournal,
    stop: Stop,
    profile: Profile,
  ):
    self._experiment, self._config, self._mesh = experiment, config, mesh
    self._feed, self._journal, self._stop, self._profile = feed, journal, stop, profile
    self._debugging = jax.config.jax_debug_nans or jax.config.jax_debug_infs
    self._everywhere = replicated(mesh)
    self._scheduled = jax.jit(_values_of(experiment.schedules), out_shardings=self._everywhere)
    self._finite = jax.jit(_all_finite, out_shardings=self._everywhere)
    self._key = jax.jit(jax.random.key, static_argnums=0, out_shardings=self._everywhere)(config.seed)
    self._in_flight = InFlight()
    self.step = 0
    self._state: State | None = None
    self._unlogged: tuple[int, Running, Mapping[str, Array]] | None = None
    self._evaluated = True  # whether a due evaluation is done
    self._score: float | None = None  # of the evaluation at this step
    self._patience = NO_SCORE_YET
    self._saved_step = 0  # the initial State needs no checkpoint, unless it came from another run

  def tell(self, status: str, metrics: Mapping[str, float] = EMPTY, note: str = '') -> Record:
    """A record of the current step."""
    return Record(self.step, metrics, status, self._state, note)

  def begin(self) -> Iterator[Record]:
    """Restores the newest valid checkpoint or initializes the State, and compiles the step unless the run is done."""
    yield self.tell('compiling')
    inputs = self._feed.inputs(0)
    batch = jax.eval_shape(self._feed.batch, inputs, 0)
    task, layout = on_mesh(self._experiment.task, self._config.mesh, self._mesh, self._key, batch)
    self._task = task._replace(train_step=jax.jit(task.train_step))  # one trace for its metrics and the step
    place = (layout, self._everywhere)
    first = jax.jit(self._first_state, out_shardings=place)
    with jax.set_mesh(self._mesh):  # as below, to trace only once
      state, running = abstract(jax.eval_shape(first, self._key, inputs), place)
    self._zeros = jax.jit(lambda: jax.tree.map(jnp.zeros_like, running), out_shardings=self._everywhere)
    transfer = None if self._journal.has_checkpoint() else self._transfer(state)  # before anything is written
    described = describe(self._experiment).to_json()
    self.step, tree = self._journal.restore(to_save(state, running), self._fingerprints(), described)
    if tree:
      self._state, self._running = tree['state'], tree['running']
      self._evaluated, self._saved_step = bool(tree['evaluated']), self.step
      self._patience = Patience.from_tree(tree['patience'])
    else:
      with jax.set_mesh(self._mesh):
        self._state, self._running = first(self._key, inputs)  # parameters are sharded from the start
      if transfer := transfer or self._transfer(state):
        with jax.set_mesh(self._mesh):
          restarted = jax.jit(self._task.restarted, out_shardings=layout)(transferred(transfer, self._state))
        self._state = jax.tree.map(jnp.copy, restarted)  # buffers of their own: a step donates them all
        self._journal.note_source(transfer.facts())
        self._saved_step = -1  # so that later starts do not need the other run
      self._journal.write_hash(0, self._state)
    if self.result is None:
      self._take_step = self._compiled(place, state, running, inputs)
    self._began = time.monotonic() - (float(tree['seconds']) if tree else 0)
    self._window = (time.monotonic(), self.step)
    yield self.tell('training', note=self._introduction())

  @property
  def result(self) -> Mapping[str, Any] | None:
    """The content of result.json, if an earlier start has finished this run."""
    return self._journal.result

  @property
  def ended(self) -> bool:
    """Whether all steps are taken, or no better score has come for long enough."""
    return self.step >= self._config.steps or self._patience.is_out(self._config.patience)

  def _transfer(self, state: State) -> Transfer | None:
    """What the initial State takes from another run."""
    if not self._config.init_from:
      return None
    return plan(read_source(self._config.init_from), state, self._config.init_map)

  def advance(self) -> None:
    """Takes one step, asynchronously."""
    inputs, before = self._feed.inputs(self.step), (self._state, self._running)
    self._profile.before(self.step + 1)
    with jax.profiler.StepTraceAnnotation('train', step_num=self.step + 1), self._unguarded():
      self._state, self._running = self._take_step(*before, inputs, self._key)
    self._in_flight.add(self._running.bad_step)
    self.step += 1
    self._profile.after(self.step, self._running)
    if self._debugging:
      self._find_fault(*before, inputs)
    self._evaluated = not (self._experiment.evaluators and self._due(self._config.eval_every))
    self._score = None

  def log_if_due(self) -> Iterator[Record]:
    """Logs the previous step, which is done by now, and records whether to log this one."""
    yield from self._log()
    if self._due(self._config.log_every) or self.step == self._config.steps:
      self._stop.agree()
      scheduled = self._scheduled(np.int32(self.step - 1))  # what this step's update used
      self._unlogged, self._running = (self.step, self._running, scheduled), self._zeros()
    if self.step in HASHED_STEPS:
      yield from self._log()
      self._journal.write_hash(self.step, self._state)

  def evaluate_if_due(self) -> Iterator[Record]:
    """Evaluates on the validation split; a signal postpones this to the next start."""
    if self._evaluated:
      return
    yield from self._log()
    self._check_state()
    yield self.tell('evaluating')
    with self._paused():
      values, _ = self._evaluate(self._experiment.evaluators)
    if self._stop.signum:
      yield from self._leave()
    self._score, self._evaluated = self._score_of(values), True
    self._patience = self._patience.after(self._score)
    self._saved_step = -1  # a checkpoint saved by a signal at this step has no score
    stops = self._patience.is_out(self._config.patience)
    yield self.tell(
      'training', values, f'stops: no better score in {self._patience.since} evaluations' if stops else ''
    )

  def save_if_due(self) -> Iterator[Record]:
    """Saves a checkpoint, also if it is among the best; after a signal, saves and leaves."""
    if self._stop.signum:
      yield from self._leave()
    due = self._due(self._config.checkpoint_every) or self.ended or self.step == 0
    if due or (self._score is not None and self._journal.is_best(self._score)):
      yield from self._save()

  def finish(self) -> Iterator[Record]:
    """Evaluates the final State, also on test, scores its checkpoint and writes the result.

    Raises an exception of a report once everything else is written; the next start evaluates again.
    """
    self._journal.wait()
    yield self.tell('evaluating')
    metrics, failed = self._evaluate(self._experiment.final_evaluators)
    if self._stop.signum:
      yield from self._leave()
    if (score := self._score_of(metrics)) is not None:
      self._journal.rescore(self.step, score)
    if failed:
      raise self._failed(*next(iter(failed.items())))
    seconds, examples = time.monotonic() - self._began, self.step * self._config.batch_size
    result = {'metrics': metrics, 'steps': self.step, 'seconds': seconds, 'examples': examples}
    result['stopped_early'] = self.step < self._config.steps
    self._journal.finish(result, self._state)
    yield self.tell('done', metrics)

  def _compiled(self, place: PyTree, *arguments: PyTree) -> Callable[..., tuple[State, Running]]:
    """The compiled step; when debugging, one that keeps the State before it for a second run."""
    step = make_step(self._task, self._feed)
    if jax.config.jax_disable_jit:
      logging.warning('JAX_DISABLE_JIT: steps will be slow while debugging')
      return step
    donated = () if self._debugging else 0
    with jax.set_mesh(self._mesh), self._unguarded():
      return jax.jit(step, donate_argnums=donated, out_shardings=place).lower(*arguments, self._key).compile()

  def _first_state(self, key: Array, inputs: Any) -> tuple[State, Running]:
    return first_state(self._task, self._feed.batch(inputs, jnp.zeros((), jnp.int32)), key)

  def _introduction(self) -> str:
    """What runs, on which devices, and from which step."""
    examples, last = len(self._experiment.train.examples), self._config.steps
    trained, frozen = (
      sum(leaf.size for leaf in jax.tree.leaves(tree))
      for tree in (self._state.params, self._state.frozen.get('params', {}))
    )
    place = f'resumed at {self.step:,} of {last:,}' if self.step else f'0 of {last:,}'
    lines = {
      'devices': device() + (f', {self._mesh.size} in use' if self._mesh.size < jax.device_count() else ''),
      'parameters': f'{trained:,}' + (f', and {frozen:,} frozen' if frozen else ''),
      'examples': f'{examples:,} for training, {examples / self._config.batch_size:,.1f} steps per epoch',
      'step': place if self.result is None else f'already done: {self.step:,} steps are taken and measured',
    }
    return '\n'.join(f'{name:10} {line}' for name, line in lines.items())

  def _fingerprints(self) -> dict[str, str]:
    evaluators = {**self._experiment.evaluators, **self._experiment.final_evaluators}
    parts = {name: evaluator.examples for name, evaluator in evaluators.items() if hasattr(evaluator, 'examples')}
    return {name: part.fingerprint() for name, part in {'train': self._experiment.train.examples, **parts}.items()}

  def _due(self, every: int) -> bool:
    return every > 0 and self.step % every == 0

  def _log(self) -> Iterator[Record]:
    if self._unlogged is None:
      return
    (step, running, scheduled), self._unlogged = self._unlogged, None
    self._check(running)
    metrics = means.compute(jax.device_get(running.metrics), 'train/')
    metrics |= {f'train/{name}': float(value) for name, value in jax.device_get(scheduled).items()}
    now, (since, before) = time.monotonic(), self._window
    speed = (step - before) * self._config.batch_size / max(now - since, 1e-9)
    self._window = (now, step)
    metrics |= {'seconds': now - self._began, 'examples_per_second': speed}
    self._journal.write(step, metrics)
    yield Record(step, metrics, 'training', self._state)

  def _find_fault(self, state: State, running: Running, inputs: Any) -> None:
    """Raises NotFiniteError where the newest step, from such a State, has made something that is not finite."""
    with unguarded():
      if not int(self._running.bad_step) and self._finite(_checked(self._state)):
        return
      step = make_step(self._task, self._feed)
      with jax.set_mesh(self._mesh):
        fault = first_not_finite(lambda *given: step(*given)[::-1], state, running, inputs, self._key)
    cause = self._experiment.train.not_finite(self.step - 1)
    found = f'{cause}; fix the data' if cause else fault or 'only as compiled, not one operation at a time'
    raise NotFiniteError(f'step {self.step} makes NaN or infinity: {found}; {self._kept()}')

  def _unguarded(self) -> contextlib.AbstractContextManager:
    return unguarded() if self._debugging else contextlib.nullcontext()

  def _check(self, running: Running) -> None:
    if bad_step := int(running.bad_step):
      cause = self._experiment.train.not_finite(bad_step - 1)
      raise self._not_finite(f'the loss of step {bad_step} is', cause, untrained=bad_step == 1)

  def _check_state(self) -> None:
    """Checks the State, as gradients can be NaN when the loss is not; such a State is neither evaluated nor saved."""
    self._check(self._running)
    if not self._finite(_checked(self._state)):
      raise self._not_finite(f'parameters or statistics after step {self.step} are')

  def _not_finite(self, what: str, cause: str = '', untrained: bool = False) -> NotFiniteError:
    if cause:
      advice = f'{cause}; fix the data'
    elif untrained:
      advice = 'nothing is learned yet, so look for an index out of range, an overflow or a 0/0 in model and preprocess'
    else:
      advice = 'lower the learning rate or clip the gradients'
    how = '' if cause else ', and --debug_nans names the operation that makes it'
    return NotFiniteError(f'{what} NaN or infinite: {advice}{how}; {self._kept()}')

  def _kept(self) -> str:
    return f'checkpoints of earlier steps are in {self._journal.path}' if self._journal.path else 'nothing is kept'

  def _failed(self, name: str, error: Exception) -> Exception:
    kept = f'; everything else is saved in {self._journal.path}; run the same command to retry it'
    return told(error, failure(name, error) + (kept if self._journal.path else ''))

  def _evaluate(self, evaluators: Mapping[str, EvalFn]) -> tuple[dict[str, float], dict[str, Exception]]:
    """Writes and returns the metrics, and the exceptions of reports.

    Figures are drawn after all metrics, where no signal interrupts them.
    """
    values, failed, shown = {}, {}, {}
    debugging = jax_checks(f'the evaluation after step {self.step}', self._kept())
    with debugging, jax.set_mesh(self._mesh), contextlib.suppress(Stopped), self._stop.interrupting():
      for split, evaluator in evaluators.items():
        for name, value in evaluator(self._state, random.stream(self._key, split, self.step)):
          if isinstance(value, numbers.Real):  # including NumPy's
            values[f'{split}/{name}'] = float(value)
          else:
            (failed if isinstance(value, Exception) else shown)[f'{split}/{name}'] = value
    self._stop.agree()
    for name in [name for name, value in values.items() if not math.isfinite(value)]:
      logging.warning('step %d: %s is %s, so it is left out', self.step, name, values.pop(name))
    if not self._stop.signum:
      if values:
        self._journal.write(self.step, values)
      failed |= self._show(shown)
    for name, error in failed.items():
      logging.error('step %d: %s', self.step, failure(name, error))
    return values, failed

  def _show(self, shown: Mapping[str, Any]) -> dict[str, Exception]:
    """Saves texts and figures; returns the exceptions of those that cannot be drawn."""
    failed = {}
    for name, value in shown.items():
      try:
        self._journal.show(self.step, name, value)
      except OSError:  # of the disk
        raise
      except Exception as error:
        failed[name] = error
    return failed

  def _score_of(self, values: Mapping[str, float]) -> float | None:
    """The score of an evaluation, if any; an exception in `score` loses a best checkpoint, but not the run."""
    if not (self._experiment.score and values):
      return None
    try:
      return float(self._experiment.score(values))
    except Exception as error:
      logging.warning('step %d has no score: it raised %s: %s', self.step, type(error).__name__, error)
      return None

  def _save(self) -> Iterator[Record]:
    yield from self._log()
    if self._saved_step == self.step:
      return
    yield self.tell('saving')
    with self._paused():
      self._check_state()
      seconds = time.monotonic() - self._began
      tree = to_save(self._state, self._running, self._evaluated, seconds, self._patience)
      self._journal.save(self.step, tree, self._score)
    self._saved_step = self.step

  def _leave(self) -> Iterator[Record]:
    yield from self._save()
    self._journal.wait()
    raise Interrupted(self._stop.signum, f'at step {self.step}', self._journal.path, saved=self.step > 0)

  @contextlib.contextmanager
  def _paused(self) -> Iterator[None]:
    """Excludes the time spent within from the training speed."""
    paused = time.monotonic()
    yield
    since, step = self._window
    self._window = (since + time.monotonic() - paused, step)
