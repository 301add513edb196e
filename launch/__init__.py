"""Commands: thin absl programs over research and experiments."""

import sys

if sys.orig_argv[-2:] != ['-m', 'launch']:  # which lists the commands, and needs no JAX
  try:
    import jax  # noqa: F401
  except ValueError as error:  # of a JAX_... variable, which JAX reads on import
    print(f'error: {error}', file=sys.stderr)
    sys.exit(2)
