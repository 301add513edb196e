"""What the arrays of a batch must contain for a model and an objective; the host checks it."""

import math
from typing import NamedTuple

import jax


class Expected(NamedTuple):
  """Constraints on an array's unmasked entries."""

  shape: tuple[int | None, ...] | None = None  # of an example; None is any size or any shape
  reshaped: bool = False  # axes of size 1 may be added or missing
  at_least: float = -math.inf
  at_most: float = math.inf
  whole: bool = False  # no fractions
  integer: bool = False  # of an integer dtype
  never: int | None = None  # a value that must not occur: the blank of CTC
  masks: tuple[str, ...] = ('mask',)  # arrays; where one of them is 0, entries are not checked
  lengths: str = ''  # array with the number of valid positions; '' if all are
  optional: bool = False  # whether the array may be missing
  why: str = ''  # the reason for the range

  def __str__(self) -> str:
    if (self.at_least, self.at_most, self.whole) == (0, 1, True):
      text = '0 or 1'
    else:
      text = 'integers' if self.integer else 'whole numbers' if self.whole else 'numbers'
      if math.isfinite(self.at_most):
        text += f' from {self.at_least} to {self.at_most}'
      elif math.isfinite(self.at_least):
        text += f' of at least {self.at_least}'
    text += '' if self.never is None else f' other than {self.never}'
    return text + (f': {self.why}' if self.why else '')


def labels(outputs: jax.ShapeDtypeStruct, **more) -> Expected:
  """Integer labels for a model's `outputs` [..., classes]."""
  num_classes = outputs.shape[-1]
  why = f'the model has {num_classes} outputs'
  return Expected(
    **{'shape': outputs.shape[1:-1], 'at_least': 0, 'at_most': num_classes - 1, 'integer': True, 'why': why, **more}
  )
