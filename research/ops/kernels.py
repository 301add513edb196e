"""Kernel selection: a faster form of an operation on CPU, XLA's own elsewhere.

To add a kernel: write the plain form, and a fast form with the same arguments and results; if its derivative is
special, use `jax.custom_jvp`, which supports every mode of differentiation. Call `choose(name, fast, plain, ...)` where
the operation is needed, add the name to NAMES, and add a case to `tests/ops/test_kernels.py`, which compares the two
forms. A kernel for another platform, or a native one behind XLA's FFI, is another branch in `_by_platform`.
"""

import functools
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import jax
from jax import lax

from research.errors import ConfigError, unknown

NAMES = ('attention', 'bias', 'convolution', 'max_pool', 'norm', 'product', 'transposed_convolution')

_off = jax.make_user_context(frozenset())  # part of jit's cache key


def plain(*names: str) -> AbstractContextManager:
  """Context in which the kernels `names` are traced in their plain form. Raises ConfigError for an unknown name."""
  for name in names:
    if name not in NAMES:
      raise ConfigError(f'kernel {name}: {unknown(name, NAMES)}')
  return _off(_off.value.union(names))


def choose(name: str, fast: Callable, plain: Callable, *operands: Any, **options: Any) -> Any:
  """`fast(*operands, **options)` on CPU unless the kernel is off; else `plain(*operands, **options)`.

  Both must be module-level functions and `options` hashable, so that traces are cached. Only the operands are saved for
  the backward pass.
  """
  assert name in NAMES, name
  if name in _off.value:
    return plain(*operands, **options)
  return _by_platform(fast, plain, **options)(*operands)


@functools.cache
def _by_platform(fast: Callable, plain: Callable, **options: Any) -> Callable:
  fast, plain = (functools.partial(form, **options) for form in (fast, plain))
  # The platform is known at lowering, so a program exported for several has both forms. Differentiation would save the
  # residuals of both; checkpoint recomputes them instead, which XLA's common subexpression elimination makes free.
  chosen = functools.partial(lax.platform_dependent, cpu=fast, default=plain)
  return jax.jit(jax.checkpoint(chosen, prevent_cse=False))
