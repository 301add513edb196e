"""Saves the outputs of a model to a file."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np

from research.errors import naming
from research.evaluate.reports import Report
from research.types import PyTree, Rows


def saved_to(path: Path) -> Report:
  """Report that atomically writes outputs and all rows but the inputs to a new file.

  A tree of outputs is written as `outputs_NAME` each.
  """

  def report(outputs: PyTree, rows: Rows) -> Iterator:
    temporary = path.with_name(f'{path.name}.{os.getpid()}.npz')
    kept = {name: array for name, array in rows.items() if name != 'inputs'}
    leaves = [('_'.join(['outputs', *map(_name, where)]), leaf) for where, leaf in jax.tree.leaves_with_path(outputs)]
    try:
      with naming(path):
        np.savez(temporary, **dict(leaves), **kept)
      os.link(temporary, path)  # unlike a rename, it never replaces a file
    finally:
      temporary.unlink(missing_ok=True)
    yield 'predictions', str(path)

  return report


def _name(key: Any) -> str:
  return jax.tree_util.keystr((key,), simple=True)
