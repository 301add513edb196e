"""Time series as examples: windows of one array, scaled with training statistics."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from research.data.examples import Dataset, fingerprint_of
from research.data.scaling import Scale, fit_scale
from research.errors import ConfigError, check_counts


@dataclass(frozen=True)
class Windows:
  """A window for every step with `context` steps before it and `horizon` steps from it on.

  A row has `inputs` [context, features], the steps before, and `targets` [horizon, outputs], the steps from it on.
  Windows overlap, so only the series is stored and rows are sliced on access.
  """

  inputs: np.ndarray  # [steps, features]
  targets: np.ndarray  # [steps, outputs] of the same steps
  context: int
  horizon: int
  columns: tuple[str, ...]  # names of the features
  scale: Scale  # of the features

  def __len__(self) -> int:
    return max(0, len(self.inputs) - self.context - self.horizon + 1)

  def rows(self, indices: np.ndarray) -> dict[str, np.ndarray]:
    first = np.asarray(indices)[:, None]
    past, future = first + np.arange(self.context), first + np.arange(self.context, self.context + self.horizon)
    return {'inputs': self.inputs[past], 'targets': self.targets[future]}

  def fingerprint(self) -> str:
    shapes = f'{self.context} {self.horizon} {self.inputs.shape} {self.targets.shape}'
    return fingerprint_of(shapes, self.inputs, self.targets)


def windows(
  values: np.ndarray,
  targets: np.ndarray | None,
  ends: Sequence[int],
  context: int,
  horizon: int,
  columns: tuple[str, ...],
) -> Dataset:
  """Windows of three consecutive splits of a series, which end before the steps `ends`, scaled by the first split.

  Targets lie within a split. Inputs may reach into the previous split, as they would be known by then.

  Args:
    values: features [steps, features], standardized here.
    targets: the targets [steps, outputs], not rescaled; None for the standardized features themselves.

  Raises:
    ConfigError: ends that do not increase or exceed the series, or a split shorter than a window.
  """
  check_counts(context=context, horizon=horizon)
  if list(ends) != sorted({*ends}) or not 0 < ends[0] <= ends[-1] <= len(values):
    raise ConfigError(f'ends={tuple(ends)}: must increase, from 1 to at most the {len(values)} steps of the series')
  scale = fit_scale(values[: ends[0]])
  inputs = scale.standardized(values)
  targets = inputs if targets is None else targets.astype(np.float32)
  starts = (0, *(end - context for end in ends[:-1]))  # in the series, if the first split is long enough
  parts = []
  for name, start, end in zip(('training', 'validation', 'test'), starts, ends, strict=True):
    split = Windows(inputs[start:end], targets[start:end], context, horizon, columns, scale)
    if not len(split):
      raise ConfigError(
        f'context={context}, horizon={horizon}: must fit into the {end - start} steps of the {name} split'
      )
    parts.append(split)
  return Dataset(*parts, fitted={'columns': columns, 'scale': scale._asdict()})
