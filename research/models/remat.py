"""Rematerialization: recomputing a block's activations in the backward pass to save memory (Chen et al. 2016)."""

import inspect
from collections.abc import Callable

import jax
from flax import linen as nn

from research.errors import ConfigError
from research.models.fields import innermost, with_field


def remat(block: Callable, policy: str) -> Callable:
  """`block`, a method (module, x, ...) of a Linen module, with its activations rematerialized according to `policy`.

  'everything' saves only `x`; other names are those of `jax.checkpoint_policies`; '' returns `block` unchanged.
  Parameter names and random streams stay the same. The arguments after `x` are static.

  XLA's CPU compiler removes the barriers that delay the recomputation until it is needed, so little or no memory is
  saved there unless XLA_FLAGS has `--xla_disable_hlo_passes=cse_barrier_expander`, which `launch.cpu` sets.

  Raises ConfigError for an unknown policy.
  """
  if not policy:
    return block
  if policy != 'everything' and not hasattr(jax.checkpoint_policies, policy):
    raise ConfigError(f'remat={policy!r}: must be everything or a policy of jax.checkpoint_policies')
  keep = None if policy == 'everything' else getattr(jax.checkpoint_policies, policy)
  static = tuple(range(2, len(inspect.signature(block).parameters)))
  return nn.remat(block, static_argnums=static, policy=keep)


def with_remat(model: nn.Module, policy: str) -> nn.Module:
  """`model`, or the model that it wraps, with `policy` for its blocks. Raises ConfigError if it has none."""
  found = with_field(model, 'remat', policy) if policy else model
  if found is None:
    raise ConfigError(
      f"config.remat={policy!r}: {type(innermost(model)).__name__} has no blocks to rematerialize; leave it ''"
    )
  return found
