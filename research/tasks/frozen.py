"""Freezing parts of a model: parameters and statistics, by globs of their paths."""

import contextlib
import fnmatch
import inspect
from collections.abc import Callable, Sequence
from typing import Any

from flax import linen as nn
from flax import traverse_util

from research.errors import ConfigError, alike
from research.types import PyTree

FIELD = 'config.optimizer.freeze'  # the field with an experiment's patterns


def split_frozen(collections: PyTree, patterns: Sequence[str]) -> tuple[PyTree, PyTree]:
  """Splits Linen collections into those trained and those frozen by `patterns`, such as 'encoder/*'.

  Paths are relative to a collection, so a pattern matches parameters and their statistics alike. Raises ConfigError for
  a pattern that matches no parameter, and if all parameters are frozen.
  """
  if not patterns:
    return collections, {}
  leaves = traverse_util.flatten_dict(collections)
  _check_patterns(patterns, ['/'.join(path[1:]) for path in leaves if path[0] == 'params'])
  frozen = {path: leaf for path, leaf in leaves.items() if matches('/'.join(path[1:]), patterns)}
  trained = {path: leaf for path, leaf in leaves.items() if path not in frozen}
  return traverse_util.unflatten_dict(trained), traverse_util.unflatten_dict(frozen)


def frozen_in_eval_mode(patterns: Sequence[str]) -> contextlib.AbstractContextManager:
  """Within it, entirely frozen modules run in evaluation mode: without dropout, with running statistics."""

  def call(method: Callable, args: tuple, kwargs: dict, context: nn.module.InterceptorContext) -> Any:
    path = '/'.join(context.module.path)
    if path and context.method_name == '__call__' and matches(f'{path}/', patterns):
      if hasattr(context.module, 'train'):  # a field, as of our batch norm
        object.__setattr__(context.module, 'train', False)
      bound = inspect.signature(context.orig_method).bind(*args, **kwargs)
      if 'train' in bound.arguments:
        bound.arguments['train'] = False
      return method(*bound.args, **bound.kwargs)
    return method(*args, **kwargs)

  return nn.intercept_methods(call) if patterns else contextlib.nullcontext()


def matches(path: str, patterns: Sequence[str]) -> bool:
  """Whether any glob of `patterns` matches a path whose names are joined by '/'; '*' matches '/' too."""
  return any(fnmatch.fnmatchcase(path, pattern) for pattern in patterns)


def _check_patterns(patterns: Sequence[str], paths: list[str]) -> None:
  for pattern in patterns:
    if not fnmatch.filter(paths, pattern):
      nearest = alike(pattern, paths) or paths[:3]
      raise ConfigError(f'{FIELD}: {pattern!r} matches no parameter; nearest: {", ".join(nearest)}')
  if all(matches(path, patterns) for path in paths):
    raise ConfigError(f'{FIELD}: {", ".join(patterns)} leaves no parameter to train; freeze fewer')
