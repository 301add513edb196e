"""Totals and counts: exact for every mask, dtype and split."""

import jax.numpy as jnp
import numpy as np

from research import metrics

VALUES = np.random.default_rng(0).normal(size=(1001, 3)).astype(np.float32)


def test_parts_add_up_to_the_mean_of_all_whatever_their_masks():
  mask = (np.arange(1001) % 3 > 0).astype(np.float32)
  parts = [
    {'a': metrics.mean(jnp.asarray(VALUES[p]), mask[p])} for p in (slice(0, 10), slice(10, 700), slice(700, None))
  ]
  total = metrics.add(metrics.add(parts[0], parts[1]), parts[2])
  assert float(total['a'].count) == 3 * mask.sum()
  np.testing.assert_allclose(metrics.compute(total)['a'], VALUES[mask > 0].mean(), rtol=1e-5)


def test_values_of_half_precision_are_counted_and_summed_in_single():
  ones = jnp.ones((1001, 3), jnp.bfloat16)
  for mean in (metrics.mean(ones), metrics.mean(ones, np.ones(1001, np.float32))):
    assert (float(mean.total), float(mean.count)) == (3003, 3003)


def test_what_is_masked_does_not_count_even_if_it_is_no_number():
  mean = metrics.mean(jnp.array([1.0, jnp.nan, jnp.inf]), jnp.array([1.0, 0.0, 0.0]))
  assert metrics.compute({'a': mean}, 'test/') == {'test/a': 1.0}
  assert metrics.compute({'a': metrics.mean(jnp.zeros(2), jnp.zeros(2)), 'b': mean}) == {'b': 1.0}


def test_a_mask_of_positions_counts_each_of_them():
  mask = (np.arange(3003).reshape(1001, 3) % 5 > 1).astype(np.float32)
  mean = metrics.mean(jnp.asarray(VALUES), mask)
  assert float(mean.count) == mask.sum()
  np.testing.assert_allclose(metrics.compute({'a': mean})['a'], VALUES[mask > 0].mean(), rtol=1e-5)


def test_targets_that_do_not_count_are_zero():
  targets = np.array([[1.0, np.nan], [np.inf, 4.0], [5.0, 6.0]], np.float32)
  np.testing.assert_array_equal(metrics.filled(targets, np.array([0.0, 0.0, 1.0])), [[0, 0], [0, 0], [5, 6]])
  mask = np.array([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]])
  np.testing.assert_array_equal(metrics.filled(targets, mask), [[1, 0], [0, 4], [0, 0]])
  np.testing.assert_array_equal(metrics.filled(targets, None), targets)
