"""Early stopping: a run ends once a number of evaluations in a row have brought no better score."""

import sys
from typing import NamedTuple

import numpy as np

from research.types import PyTree


class Patience(NamedTuple):
  """The best score so far, and the number of evaluations since; a part of every checkpoint."""

  best: float = -sys.float_info.max  # so that a checkpoint holds finite numbers alone
  since: int = 0

  def after(self, score: float | None) -> 'Patience':
    """What another evaluation makes of it; one without a score is no better."""
    return Patience(score) if score is not None and score > self.best else Patience(self.best, self.since + 1)

  def is_out(self, patience: int) -> bool:
    """Whether a run of such `config.patience` stops here; 0 never does."""
    return 0 < patience <= self.since

  def to_tree(self) -> PyTree:
    """As a checkpoint holds it."""
    return {'best': np.float64(self.best), 'since': np.int32(self.since)}

  @classmethod
  def from_tree(cls, tree: PyTree) -> 'Patience':
    """The same, of what a checkpoint holds."""
    return cls(float(tree['best']), int(tree['since']))


NO_SCORE_YET = Patience()
