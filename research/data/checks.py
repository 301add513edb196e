"""Checks all examples before anything is compiled; invalid data is refused in one line."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from research.data.examples import Arrays, Examples, counting
from research.errors import DataError
from research.expected import Expected
from research.types import Rows

Expects = Callable[[Rows], Mapping[str, Expected]]  # of a batch: what its arrays must contain

MASK = Expected(
  at_least=0, at_most=1, whole=True, masks=(), optional=True, why='where it is 0 an example does not count'
)
LENGTHS = {'lengths': 'inputs', 'target_lengths': 'targets'}  # arrays counting the valid positions of others


def checked(split: str, examples: Examples, expects: Expects) -> Examples:
  """`examples`, once checked; those that are not in memory are checked batch by batch, as they are read.

  Args:
    split: name of the split, for the error.
    expects: called with a batch of one example.

  Raises DataError for the first invalid array and example.
  """
  if isinstance(examples, Checked):
    return examples
  if isinstance(examples, Arrays):
    if not examples.arrays:
      return _check_needless(split, examples, expects)
    _check_arrays(split, examples.arrays)
  if not len(examples):
    raise DataError(f'{split}: has no examples; there must be at least one')
  index = np.zeros(1, np.int32)
  first = examples.rows(index)
  _check_numbers(split, first)
  _check_mask(split, first)
  found = Checked(split, examples, {**_lengths(first), **expects({**first, 'index': index}), 'mask': MASK})
  if not isinstance(examples, Arrays):
    return found
  found.check(examples.arrays, np.arange(len(examples)))
  if 'mask' in first and not examples.arrays['mask'].any():
    raise DataError(f'{split} mask: is 0 everywhere, so no example counts')
  return examples


@dataclass(frozen=True)
class Checked:
  """Examples that are checked when they are read."""

  split: str
  examples: Examples
  expected: Mapping[str, Expected]

  def __len__(self) -> int:
    return len(self.examples)

  def rows(self, indices: np.ndarray) -> dict[str, np.ndarray]:
    rows = self.examples.rows(indices)
    self.check(rows, indices)
    return rows

  def fingerprint(self) -> str:
    return self.examples.fingerprint()

  def check(self, rows: Rows, index: np.ndarray) -> None:
    """Raises DataError for the first invalid array of the examples `index`."""
    for name, array in rows.items():
      dtype = jax.dtypes.canonicalize_dtype(array.dtype)  # 64 bits become 32, unless JAX_ENABLE_X64 is set
      if dtype != array.dtype:
        self._refuse(_beyond(dtype, array), array, f'representable in {dtype}', name, index)
    for name, expected in self.expected.items():
      if missing := {name, expected.lengths} - {''} - rows.keys():
        if expected.optional:
          continue
        raise DataError(f'{self.split}: has no array {missing.pop()!r}, only {", ".join(rows)}')
      self._check(name, rows, expected, index)

  def _check(self, name: str, rows: Rows, expected: Expected, index: np.ndarray) -> None:
    array = rows[name]
    if not _has_shape(array.shape[1:], expected):
      raise DataError(f'{self.split} {name}: {_wrong_shape(array.shape[1:], expected)}')
    wrong = _wrong(array, expected) & _counts(name, rows, expected)
    dtype = f' ({array.dtype})' if expected.integer and not jnp.issubdtype(array.dtype, jnp.integer) else ''
    self._refuse(wrong, array, f'{expected}', name, index, dtype)

  def _refuse(
    self, wrong: np.ndarray, array: np.ndarray, needed: str, name: str, index: np.ndarray, dtype: str = ''
  ) -> None:
    """Raises DataError for the first example with a `wrong` entry."""
    examples = wrong.reshape(len(wrong), -1).any(axis=1)
    if examples.any():
      row = examples.argmax()
      value = array[row][wrong[row]].flat[0].item()
      raise DataError(f'{self.split} {name}: example {index[row]} has {value}{dtype}; must be {needed}')


def _check_needless(split: str, examples: Examples, expects: Expects) -> Examples:
  """`examples`, which have no arrays; raises DataError for a task that reads any."""
  try:
    expects({'index': np.zeros(1, np.int32)})
  except DataError as error:
    raise DataError(f'{split}: has no arrays; there must be inputs') from error
  return examples


def _check_arrays(split: str, arrays: Rows) -> None:
  """Raises DataError unless all are arrays with the same number of examples."""
  for name, array in arrays.items():
    if not (isinstance(array, np.ndarray | jax.Array) and array.ndim):  # a pandas.Series is indexed by its labels
      raise DataError(f'{split} {name}: is a {type(array).__name__}; must be an array [examples, ...]; use np.asarray')
  (first, size), *others = ((name, len(array)) for name, array in arrays.items())
  for name, other in others:
    if other != size:
      raise DataError(f'{split} {name}: has {other} examples but {first} has {size}; all must have the same number')


def _check_numbers(split: str, first: Rows) -> None:
  """Raises DataError for text and other non-numeric arrays; `first` is the first example."""
  for name, array in first.items():
    if not (jnp.issubdtype(array.dtype, jnp.number) or jnp.issubdtype(array.dtype, jnp.bool_)):
      advice = '; encode labels with np.unique(..., return_inverse=True)' if name == 'targets' else ''
      raise DataError(f'{split} {name}: example 0 has {array.ravel().tolist()[0]!r}; must be numbers{advice}')


def _check_mask(split: str, first: Rows) -> None:
  """Raises DataError unless the mask has the leading axes of the targets, or of the inputs if there are no targets."""
  name = 'targets' if 'targets' in first else 'inputs'
  if 'mask' in first and name in first:
    mask, array = (tuple(size for size in first[key].shape[1:] if size != 1) for key in ('mask', name))
    if mask != array[: len(mask)]:
      found, needed = (', '.join(['examples', *map(str, sizes)]) for sizes in (mask, array))
      raise DataError(f'{split} mask: is [{found}]; must be [examples] or a prefix of the shape of {name}, [{needed}]')


def _lengths(first: Rows) -> dict[str, Expected]:
  """What lengths must be, by name, if there are any."""
  return {
    name: Expected((), at_least=0, at_most=first[of].shape[1], integer=True, why=f'the number of positions in {of}')
    for name, of in LENGTHS.items()
    if name in first and of in first and first[of].ndim > 1
  }


def _beyond(dtype: np.dtype, array: np.ndarray) -> np.ndarray:
  """Which finite entries would silently overflow in `dtype`: bool, in the array's shape."""
  limits = (jnp.iinfo if array.dtype.kind in 'iu' else jnp.finfo)(dtype)
  return np.isfinite(array) & ((array < limits.min) | (array > limits.max))


def _has_shape(shape: tuple[int, ...], expected: Expected) -> bool:
  needed = shape if expected.shape is None else expected.shape
  if expected.reshaped:
    shape, needed = (tuple(size for size in sizes if size != 1) for sizes in (shape, needed))
  return len(shape) == len(needed) and all(size in (there, None) for there, size in zip(shape, needed, strict=True))


def _wrong_shape(shape: tuple[int, ...], expected: Expected) -> str:
  found, needed = (', '.join(['examples', *map(str, sizes)]) for sizes in (shape, expected.shape))
  one_hot = expected.integer and shape == (*expected.shape, expected.at_most + 1)
  return f'is [{found}]; must be [{needed}], {expected}' + ('; use argmax(-1) of one-hot labels' if one_hot else '')


def _wrong(array: np.ndarray, expected: Expected) -> np.ndarray:
  """Which entries are invalid, masked or not: bool, in the array's shape."""
  if expected.integer and not jnp.issubdtype(array.dtype, jnp.integer):
    return np.ones(array.shape, bool)
  wrong = np.zeros(array.shape, bool)
  if np.isfinite(expected.at_least):
    wrong |= ~(array >= expected.at_least)  # NaN compares false
  if np.isfinite(expected.at_most):
    wrong |= ~(array <= expected.at_most)
  if expected.whole:
    wrong |= array != np.floor(array)
  if expected.never is not None:
    wrong |= array == expected.never
  return wrong


def _counts(name: str, rows: Rows, expected: Expected) -> np.ndarray:
  """Which entries of an array are unmasked: bool, in its shape."""
  counts = np.ones(rows[name].shape, bool)
  for mask in expected.masks:
    if mask in rows:
      counts &= counting(rows, name, mask)
  if expected.lengths:
    there = np.arange(counts.shape[1]) < rows[expected.lengths][:, None]
    counts &= np.expand_dims(there, tuple(range(2, counts.ndim)))
  return counts
