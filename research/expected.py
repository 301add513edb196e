"""What the arrays of a batch must hold for a model and an objective. Objectives say it, the host checks it."""

import math
from typing import NamedTuple

import jax


class Expected(NamedTuple):
  """What an array must hold wherever it counts."""

  shape: tuple[int | None, ...] | None = None  # of an example; None is any size, or any shape
  reshaped: bool = False  # whether axes of size 1 may be there or not
  at_least: float = -math.inf
  at_most: float = math.inf
  whole: bool = False  # no fraction
  integer: bool = False  # of an integer dtype, too
  never: int | None = None  # a number that must not occur: the blank of CTC
  masks: tuple[str, ...] = ('mask',)  # arrays; where one of them is 0 anything may stand
  lengths: str = ''  # array of how many first positions count; '' where all do
  optional: bool = False  # whether the array may be missing
  why: str = ''  # what sets the range

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
  """Numbers of the classes that a model's `outputs` [..., classes] tell apart."""
  num_classes = outputs.shape[-1]
  why = f'the model has {num_classes} outputs'
  return Expected(
    **{'shape': outputs.shape[1:-1], 'at_least': 0, 'at_most': num_classes - 1, 'integer': True, 'why': why, **more}
  )
