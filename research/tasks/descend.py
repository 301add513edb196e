"""One update by gradient descent, shared by all tasks that use it."""

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import optax
from jax import Array

from research.errors import check_counts
from research.metrics import Mean, Metrics
from research.tasks.accumulate import accumulated
from research.tasks.base import State, Totals, mean_gradient, mean_loss, moved, reduce, total_gradient, unless_empty
from research.tasks.precision import scaled, unless_overflow, unscaled
from research.types import Batch, PyTree

# (params, state, batch, key, number of the micro-batch) -> loss, metrics, updated collections
Loss = Callable[[PyTree, State, Batch, Array, int | Array], tuple[Mean, Metrics, PyTree]]

# Collections that `State.ema` averages. Batch statistics too: those of the raw network do not fit the averaged one. A
# tenth of the way into a schedule the validation loss of lstm_fcn_forda is .387 with them, .357 with averaged ones and
# .354 with ones recomputed over 200 batches; of cnn_digits .361, .356, .356; of cnn_mnist .594, .593, .591. At the end
# of a schedule, where the parameters hardly move, all three agree.
AVERAGED = ('params', 'batch_stats')


@dataclass(frozen=True)
class Compute:
  """How gradients are computed. Raises ConfigError for `accumulate` below 1."""

  precision: str = 'float32'  # of the networks' computation, one of `research.tasks.precision.PRECISIONS`
  accumulate: int = 1  # micro-batches per batch; see `accumulated` about batch norm
  axis_name: str = ''  # mapped axis of devices that each see a shard of the batch (pmap); '' otherwise
  log_norms: bool = False  # whether L2 norms of gradients and updates are among the metrics

  def __post_init__(self):
    check_counts(accumulate=self.accumulate)


PLAIN = Compute()


def descend(
  state: State,
  batch: Batch,
  key: Array,
  loss: Loss,
  optimizer: optax.GradientTransformation,
  compute: Compute = PLAIN,
  ema_decay: float = 0.0,
) -> tuple[State, Totals]:
  """`state` after one update on `loss`, without incrementing its step, and the totals over the batch.

  If no example counts, nothing changes; if float16 overflows, only the loss scale does. The optimizer may ask for the
  `value` of the loss, as `optax.contrib.reduce_on_plateau` does.
  """

  def gradient(state: State, batch: Batch, key: Array, number: int | Array) -> tuple[Totals, State]:
    def scaled_loss(params: PyTree) -> tuple[Mean, Metrics, PyTree]:
      value, *rest = loss(params, state, batch, key, number)
      return scaled(value, state), *rest

    totals, changed = total_gradient(scaled_loss, state.params)
    return totals, moved(state, changed)

  totals, after = accumulated(gradient, compute.accumulate)(state, batch, key)
  totals = unscaled(reduce(totals, compute.axis_name), state)
  gradients, value = mean_gradient(totals), mean_loss(totals)
  update = optax.with_extra_args_support(optimizer).update
  updates, opt_state = update(gradients, state.opt_state, state.params, value=value)
  params = optax.apply_updates(state.params, updates)
  average = averaged(state.ema, {'params': params, **after.mutable}, state.step, ema_decay)
  new = after.replace(params=params, opt_state=opt_state, ema=average)
  if compute.log_norms:
    totals = totals._replace(
      metrics={**totals.metrics, 'gradient_norm': _norm(gradients), 'update_norm': _norm(updates)}
    )
  return unless_empty(unless_overflow(new, state, gradients), state, totals.loss), totals


def _norm(tree: PyTree) -> Mean:
  """L2 norm of all leaves as one vector; one that overflows does not count."""
  norm = optax.tree.norm(tree)
  finite = jnp.isfinite(norm)
  return Mean(jnp.where(finite, norm, 0), finite.astype(norm.dtype))


def first_average(collections: PyTree, ema_decay: float) -> PyTree:
  """The initial `State.ema`, given all collections of a State; empty without a decay."""
  return {name: jax.tree.map(jnp.copy, collections[name]) for name in AVERAGED if ema_decay and name in collections}


def averaged(average: PyTree, collections: PyTree, step: Array, decay: float) -> PyTree:
  """Exponential moving average of the collections, with a smaller decay at first to forget the initialization."""
  decay = jnp.minimum(decay, (1.0 + step) / (10.0 + step))
  new = {name: collections[name] for name in average}
  return jax.tree.map(lambda old, new: decay * old + (1 - decay) * new, average, new)
