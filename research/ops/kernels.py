"""The one place where a kernel is chosen: on CPU a faster form of an operation, elsewhere XLA's own.

To add a kernel: write the plain form as one would without it, and a fast form with the same arguments and results, with
`jax.custom_jvp` where its derivative is special (it keeps every mode of differentiation), else plainly. Call
`choose(name, fast, plain, ...)` where the operation is wanted, name the kernel in NAMES, and give it a row in
`tests/ops/test_kernels.py`, which compares the two forms in all that they may meet. A kernel of another platform, or
a native one behind XLA's FFI, is one more branch of `_by_platform`.
"""

import functools
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import jax
from jax import lax

from research.errors import ConfigError, unknown

NAMES = ('attention', 'bias', 'convolution', 'max_pool', 'norm', 'product', 'transposed_convolution')

_off = jax.make_user_context(frozenset())  # part of the key by which jit finds what it has traced


def plain(*names: str) -> AbstractContextManager:
  """Within it the kernels `names` are off: what is traced takes the plain form. Raises ConfigError for another name."""
  for name in names:
    if name not in NAMES:
      raise ConfigError(f'kernel {name}: {unknown(name, NAMES)}')
  return _off(_off.value.union(names))


def choose(name: str, fast: Callable, plain: Callable, *operands: Any, **options: Any) -> Any:
  """`fast(*operands, **options)` in a program for CPU, unless the kernel is off; else `plain(*operands, **options)`.

  Both are functions of a module, and `options` hashable, so that what is traced once is found again. Between the
  forward and the backward pass nothing is kept but the operands.
  """
  assert name in NAMES, name
  if name in _off.value:
    return plain(*operands, **options)
  return _by_platform(fast, plain, **options)(*operands)


@functools.cache
def _by_platform(fast: Callable, plain: Callable, **options: Any) -> Callable:
  fast, plain = (functools.partial(form, **options) for form in (fast, plain))
  # The platform is known when a program is lowered, so that one exported for several has both forms. Differentiated, it
  # would keep what either form wants; checkpoint lets them compute that anew, which XLA finds to be at hand.
  chosen = functools.partial(lax.platform_dependent, cpu=fast, default=plain)
  return jax.jit(jax.checkpoint(chosen, prevent_cse=False))
