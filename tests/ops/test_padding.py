"""Positions that hold something, and windows that fit."""

import numpy as np
import pytest

from research.errors import ConfigError
from research.ops.padding import check_fits, valid


def test_a_position_is_valid_before_the_end_of_its_sequence():
  expected = [[False, False, False], [True, False, False], [True, True, True], [True, True, True]]
  np.testing.assert_array_equal(valid(np.array([0, 1, 3, 9]), 3), expected)


@pytest.mark.parametrize(
  ('sides', 'window', 'padding', 'fits'),
  [
    ((5, 4), (5, 4), 'VALID', True),
    ((5, 4), (5, 5), 'VALID', False),
    ((4, 5), (5, 5), 'VALID', False),
    ((1, 1), (5, 5), 'SAME', True),
    ((3, 2), (5, 5), ((1, 1), (2, 1)), True),
    ((3, 2), (5, 5), ((1, 1), (1, 1)), False),
  ],
)
def test_a_window_fits_into_the_padded_image(sides, window, padding, fits):
  if fits:
    check_fits(sides, window, (1, 1), padding)
  else:
    size = 'x'.join(map(str, sides))
    with pytest.raises(ConfigError, match=f'a window of 5x5 on feature maps of {size}: use fewer stages'):
      check_fits(sides, window, (1, 1), padding)
