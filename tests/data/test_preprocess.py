"""Stored numbers as a model sees them."""

import jax.numpy as jnp
import numpy as np
import pytest

from research.data.preprocess import standardize
from research.errors import ConfigError


def test_inputs_are_standardized_and_nothing_else():
  batch = {'inputs': jnp.array([[0, 100, 250]], jnp.uint8), 'targets': jnp.array([3])}
  found = standardize(50, 25)(batch)
  np.testing.assert_array_equal(found['inputs'], [[-2, 2, 8]])
  np.testing.assert_array_equal(standardize(0, 0.5)(batch)['inputs'], [[0, 200, 500]])
  assert found['inputs'].dtype == jnp.float32 and found['targets'] is batch['targets']


@pytest.mark.parametrize('mean, std, name', [(np.inf, 1, 'mean=inf'), (0, 0, 'std=0'), (0, -1, 'std')])
def test_numbers_that_make_no_scale_are_refused(mean, std, name):
  with pytest.raises(ConfigError, match=name):
    standardize(mean, std)
