"""Mixed precision: parameters, batch statistics, losses and EMA always stay in float32.

Micikevicius et al. 2018, 'Mixed precision training'. float16 needs loss scaling to keep small gradients from
underflowing; bfloat16, which has the exponent range of float32, does not.
"""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import jmp
from flax import linen as nn

from research.metrics import Mean
from research.tasks.base import LOSS_SCALE, State, Totals
from research.types import PyTree

PRECISIONS = ('float32', 'bfloat16', 'float16')
FIRST_SCALE = 2.0**15


@dataclass(frozen=True)
class Cast:
  """A model computed in `dtype`: casts parameters and inputs to it, and outputs to float32."""

  model: nn.Module
  dtype: jnp.dtype

  def apply(self, variables: PyTree, inputs: PyTree, *args: Any, **options: Any) -> Any:
    """As `nn.Module.apply`. Integer inputs and collections such as batch statistics are not cast."""
    params, inputs = jax.tree.map(self._to_dtype, (variables['params'], inputs))
    returned = self.model.apply({**variables, 'params': params}, inputs, *args, **options)
    return jax.tree.map(self._from_dtype, returned)

  def _to_dtype(self, leaf: Any) -> Any:
    return leaf.astype(self.dtype) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf

  def _from_dtype(self, leaf: Any) -> Any:
    return leaf.astype(jnp.float32) if leaf.dtype == self.dtype else leaf


def computing_in(precision: str, model: nn.Module) -> nn.Module | Cast:
  """`model`, computing in one of PRECISIONS."""
  return model if precision == 'float32' else Cast(model, jnp.dtype(precision))


def first_loss_scale(precision: str) -> dict[str, PyTree]:
  """The initial `State.mutable`: for float16 the loss scale and the steps since it changed."""
  if precision != 'float16':
    return {}
  return {LOSS_SCALE: {'loss_scale': jnp.float32(FIRST_SCALE), 'counter': jnp.int32(0)}}


def scaled(loss: Mean, state: State) -> Mean:
  """`loss` times the loss scale."""
  return loss._replace(total=_loss_scale(state).scale(loss.total))


def unscaled(totals: Totals, state: State) -> Totals:
  """`totals` of a scaled loss without the scale, a power of two, so nothing is rounded."""
  gradients, total = _loss_scale(state).unscale((totals.gradients, totals.loss.total))
  return totals._replace(gradients=gradients, loss=totals.loss._replace(total=total))


def unless_overflow(new: State, old: State, gradients: PyTree) -> State:
  """`new`, or `old` if `gradients` overflowed; adjusts the loss scale.

  It is doubled after 2,000 steps without overflow and halved by each overflow. If it is already 1, the gradients are
  not finite for another reason: `new` is kept, and the run stops as in any precision.
  """
  if LOSS_SCALE not in old.mutable:
    return new
  scale, finite = _loss_scale(old), jmp.all_finite(gradients)
  stands = finite | (scale.loss_scale <= scale.min_loss_scale)
  state = jmp.select_tree(stands, new, old)
  scale = scale.adjust(finite)
  after = {LOSS_SCALE: {'loss_scale': scale.loss_scale, 'counter': scale.counter}}
  return state.replace(mutable={**state.mutable, **after})


def _loss_scale(state: State) -> jmp.LossScale:
  if LOSS_SCALE not in state.mutable:
    return jmp.NoOpLossScale()
  return jmp.DynamicLossScale(**state.mutable[LOSS_SCALE])
