"""Rematerialization: recomputing a block's activations in the backward pass to save memory (Chen et al. 2016)."""

import inspect
from collections.abc import Callable

import jax
from flax import linen as nn

from research.errors import ConfigError
from research.models.fields import innermost, with_field


def remat(block: Callable, policy: str) -> Callable:
  """`block`, a method (module, x, ...) of a Linen module, that keeps of its activations what `policy` says.

  'everything' keeps nothing but `x`; other names are those of `jax.checkpoint_policies`; '' is `block` itself.
  Names of parameters and streams of noise are the same. The arguments after `x` are static.

  XLA's compiler for CPU drops the barriers that hold the second computation back until it is needed, and then little
  or nothing is saved there unless XLA_FLAGS has `--xla_disable_hlo_passes=cse_barrier_expander`, as by `launch.cpu`.

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
  """`model`, or the model that it wraps, with `policy` on its blocks. Raises ConfigError where there are none."""
  found = with_field(model, 'remat', policy) if policy else model
  if found is None:
    raise ConfigError(
      f"config.remat={policy!r}: {type(innermost(model)).__name__} has no blocks to rematerialize; leave it ''"
    )
  return found
