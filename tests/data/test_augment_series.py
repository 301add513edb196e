"""Augmentations of series against numpy's interpolation and the statistics they promise."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research.data import augment_series
from research.data.augment import chain
from research.errors import ConfigError

LENGTH = 30
SERIES = np.random.default_rng(0).normal(size=(500, LENGTH, 2)).astype(np.float32)
BATCH = {'inputs': SERIES, 'index': np.arange(500) * 3}
LENGTHS = np.arange(500) % LENGTH + 1
KEY = jax.random.key(5)
ALL = chain(augment_series.stretch(0.1), augment_series.shift(3), augment_series.scale(0.1), augment_series.jitter(0.1))


def apply(augmentation, batch=BATCH) -> np.ndarray:
  return np.asarray(jax.jit(augmentation)({name: jnp.asarray(array) for name, array in batch.items()}, KEY)['inputs'])


def drawn(draw) -> np.ndarray:
  """What `draw` makes of the key of each example."""
  keys = jax.vmap(lambda index: jax.random.fold_in(KEY, index))(jnp.asarray(BATCH['index']))
  return np.asarray(jax.vmap(draw)(keys))


def test_jitter_is_normal_noise_of_its_own_for_every_value():
  noise = apply(augment_series.jitter(0.3)) - SERIES
  np.testing.assert_allclose(noise, 0.3 * drawn(lambda key: jax.random.normal(key, (LENGTH, 2))), atol=1e-5)
  assert abs(noise.mean()) < 0.01 and noise.std() == pytest.approx(0.3, rel=0.02)
  assert len(np.unique(noise.round(6))) > 0.9 * len(np.unique(noise))
  assert np.abs(np.corrcoef(noise[:, :3].reshape(500, -1).T) - np.eye(6)).max() < 0.2


def test_scale_is_one_factor_a_feature():
  factors = apply(augment_series.scale(0.2)) / SERIES
  np.testing.assert_allclose(factors[:, :1], 1 + 0.2 * drawn(lambda key: jax.random.normal(key, (1, 2))), rtol=1e-4)
  np.testing.assert_allclose(factors, np.broadcast_to(factors[:, :1], factors.shape), rtol=1e-4)
  assert factors[:, 0].mean() == pytest.approx(1, abs=0.03) and factors[:, 0].std() == pytest.approx(0.2, rel=0.1)


@pytest.mark.parametrize('lengths', [{}, {'lengths': LENGTHS}])
def test_shift_moves_whole_steps_all_equally_likely_and_holds_the_ends(lengths):
  moved, counts = apply(augment_series.shift(2), {**BATCH, **lengths}), np.zeros(5)
  steps = drawn(lambda key: jax.random.randint(key, (), -2, 3))
  for number, (series, new) in enumerate(zip(SERIES, moved, strict=True)):
    length = lengths['lengths'][number] if lengths else LENGTH
    np.testing.assert_array_equal(new, series[np.clip(np.arange(LENGTH) - steps[number], 0, length - 1)])
    places = [np.clip(np.arange(LENGTH) - steps, 0, length - 1) for steps in range(-2, 3)]
    found = [np.array_equal(series[place][:length], new[:length]) for place in places]
    assert any(found)
    counts += found if length > 3 else 0
  assert counts.min() > 0.13 * counts.sum(), 'one in five each'


@pytest.mark.parametrize('lengths', [{}, {'lengths': LENGTHS}])
def test_stretch_is_linear_interpolation_about_the_middle(lengths):
  ramp = {'inputs': np.tile(np.arange(LENGTH, dtype=np.float32)[:, None], (500, 1, 1)), 'index': BATCH['index']}
  places, moved = (apply(augment_series.stretch(0.2), {**batch, **lengths}) for batch in (ramp, BATCH))
  factors, expected_factors = [], 1 + 0.2 * drawn(lambda key: jax.random.uniform(key, minval=-1.0))
  for number in range(500):
    length = lengths['lengths'][number] if lengths else LENGTH
    place, middle = places[number, :length, 0], (length - 1) / 2
    inside = (place > 0) & (place < length - 1) & (np.abs(np.arange(length) - middle) > 1)
    found = (place - middle)[inside] / (np.arange(length) - middle)[inside]
    assert not len(found) or np.ptp(found) < 1e-4
    factors += list(found[:1])
    if len(found):
      np.testing.assert_allclose(found[0], expected_factors[number], atol=1e-4)
    expected = np.interp(place, np.arange(length), SERIES[number, :length, 0])
    np.testing.assert_allclose(moved[number, :length, 0], expected, atol=1e-3)
  assert 0.8 <= min(factors) < 0.82 and 1.18 < max(factors) <= 1.2


def test_nothing_is_the_series_itself():
  for nothing in (
    augment_series.stretch(0),
    augment_series.shift(0),
    augment_series.scale(0),
    augment_series.jitter(0),
  ):
    np.testing.assert_array_equal(apply(nothing), SERIES)


@pytest.mark.parametrize('lengths', [{}, {'lengths': LENGTHS}])
def test_an_example_is_changed_the_same_in_any_batch(lengths):
  batch = {**BATCH, **lengths}
  whole, chosen = apply(ALL, batch), np.array([31, 7, 200, 8, 8])
  part = apply(ALL, {name: array[chosen] for name, array in batch.items()})
  np.testing.assert_allclose(part, whole[chosen], atol=1e-5)
  assert np.abs(whole - SERIES).max(axis=(1, 2)).min() > 0


@pytest.mark.parametrize(
  ('make', 'name'),
  [
    (lambda: augment_series.jitter(-1), 'jitter=-1'),
    (lambda: augment_series.scale(np.nan), 'scale=nan'),
    (lambda: augment_series.stretch(1.0), 'stretch=1.0'),
    (lambda: augment_series.shift(-1), 'shift=-1'),
  ],
)
def test_what_cannot_be_meant_is_refused(make, name):
  with pytest.raises(ConfigError, match=name):
    make()
