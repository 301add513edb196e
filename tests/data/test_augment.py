"""Augmentations against windows, mirrors and rotations made by numpy and scipy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from research.data import augment
from research.errors import ConfigError

SIZE = 9
RANDOM = np.random.default_rng(0)
IMAGES = RANDOM.integers(1, 256, (400, SIZE, SIZE, 2), np.uint8)
BATCH = {'inputs': IMAGES, 'targets': np.arange(400), 'index': np.arange(400) * 7}
KEY = jax.random.key(3)
RESAMPLED = jax.jit(augment._resampled)


def apply(augmentation, batch=BATCH) -> np.ndarray:
  return np.asarray(jax.jit(augmentation)({name: jnp.asarray(array) for name, array in batch.items()}, KEY)['inputs'])


def windows(image: np.ndarray, reach: int, mode: str) -> dict[bytes, tuple[int, int]]:
  """Every window that a move by up to `reach` may show, by its bytes."""
  padded = np.pad(image, ((reach, reach), (reach, reach), (0, 0)), mode=mode)
  places = np.ndindex(2 * reach + 1, 2 * reach + 1)
  return {padded[i : i + SIZE, j : j + SIZE].tobytes(): (i, j) for i, j in places}


def uniform(draws: int) -> np.ndarray:
  """The numbers in [0, 1) that each example draws: [examples, draws]."""
  keys = jax.vmap(lambda index: jax.random.fold_in(KEY, index))(jnp.asarray(BATCH['index']))
  return np.asarray(jax.vmap(lambda key: jax.random.uniform(key, (draws,)))(keys))


@pytest.mark.parametrize('augmentation, mode', [(augment.shift(2), 'constant'), (augment.crop(2), 'reflect')])
def test_moves_are_windows_of_the_padded_image_all_equally_likely(augmentation, mode):
  moved = [windows(image, 2, mode)[new.tobytes()] for image, new in zip(IMAGES, apply(augmentation), strict=True)]
  np.testing.assert_array_equal(moved, (5 * uniform(2)).astype(int))
  counts = np.unique(moved, axis=0, return_counts=True)[1]
  assert len(counts) == 25, 'all moves happen, the farthest too'
  assert np.sum((counts - 16) ** 2 / 16) < 51.2, 'chi-squared, 24 degrees of freedom, 0.1 %'


def test_flip_mirrors_one_in_two():
  flipped = 0
  for image, new, draw in zip(IMAGES, apply(augment.flip()), uniform(1), strict=True):
    mirrored = np.array_equal(new, np.fliplr(image))
    assert mirrored == (draw < 0.5)
    assert mirrored or np.array_equal(new, image)
    flipped += mirrored
  assert 160 < flipped < 240


@pytest.mark.parametrize(
  ('draw', 'flipped', 'zeroed'), [(0.0, True, 0), (0.5, False, SIZE // 2), (1.0, False, SIZE - 1)]
)
def test_the_ends_and_the_middle_of_what_may_be_drawn(monkeypatch, draw, flipped, zeroed):
  """1 itself is never drawn, but a product with it may be rounded up."""
  monkeypatch.setattr(jax.random, 'uniform', lambda key, shape: jnp.full(shape, draw))
  batch = {name: jnp.asarray(array[:2]) for name, array in BATCH.items()}
  expected = IMAGES[:2, :, ::-1] if flipped else IMAGES[:2]
  np.testing.assert_array_equal(augment.flip()(batch, KEY)['inputs'], expected)
  expected = IMAGES[:2].copy()
  expected[:, zeroed, zeroed] = 0
  np.testing.assert_array_equal(augment.cutout(1)(batch, KEY)['inputs'], expected)


@pytest.mark.parametrize('size', [3, 4])
def test_cutout_zeros_one_square_and_nothing_else(size):
  heights, new, places = [], apply(augment.cutout(size)), (SIZE * uniform(2)).astype(int)
  assert np.array_equal(np.where(new == 0, IMAGES, new), IMAGES)
  for hole, (row, column) in zip(new[..., 0] == 0, places, strict=True):
    assert hole[row, column]
    expected = slice(max(row - size // 2, 0), row - size // 2 + size), slice(max(column - size // 2, 0), column + size)
    assert hole[expected[0], column].all() and hole[row, expected[1]].sum() == hole[row].sum()
    rows, columns = np.flatnonzero(hole.any(1)), np.flatnonzero(hole.any(0))
    assert hole.sum() == len(rows) * len(columns) and hole[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all()
    for axis in (rows, columns):
      assert len(axis) == size or axis[0] == 0 or axis[-1] == SIZE - 1, 'cut off at the border alone'
    heights.append(len(rows))
  assert min(heights) == size - size // 2 and max(heights) == size, 'the middle may be a border pixel'


def test_affine_of_nothing_is_the_image():
  np.testing.assert_array_equal(apply(augment.affine()), IMAGES)


@pytest.mark.parametrize('angle, factor, move', [(0.4, 1.0, (0, 0)), (-0.2, 1.3, (0.5, -1.25)), (2.5, 0.7, (-3, 2))])
def test_resampling_is_that_of_scipy(angle, factor, move):
  images = IMAGES[:6].astype(np.float32)
  ours = RESAMPLED(images, jnp.full(6, angle), jnp.full(6, factor), jnp.tile(jnp.asarray(move, float), (6, 1)))
  cosine, sine, middle = np.cos(angle) / factor, np.sin(angle) / factor, np.full(2, (SIZE - 1) / 2)
  matrix = np.array([[cosine, sine], [-sine, cosine]])
  offset = middle - matrix @ (middle + move)
  for image, new in zip(images, ours, strict=True):
    for channel in range(2):
      reference = ndimage.affine_transform(image[..., channel], matrix, offset, order=1, mode='grid-constant')
      np.testing.assert_allclose(new[..., channel], reference, atol=2e-3)


def test_a_quarter_turn_is_counterclockwise():
  turned = RESAMPLED(IMAGES[:3], jnp.full(3, jnp.pi / 2), jnp.ones(3), jnp.zeros((3, 2)))
  np.testing.assert_array_equal(turned, np.rot90(IMAGES[:3], axes=(1, 2)))


def test_affine_stays_in_its_limits_and_reaches_them():
  """The farthest pixel of a bar tells how far it was turned, the middle how far it was moved."""
  image = np.zeros((33, 33, 1), np.float32)
  image[16, 4:29] = 1
  batch = {'inputs': np.tile(image, (300, 1, 1, 1)), 'index': np.arange(300)}
  rows, columns = np.mgrid[:33, :33] - 16.0
  new = apply(augment.affine(degrees=20), batch)[..., 0]
  slopes = (new * rows * columns).sum((1, 2)) / (new * columns**2).sum((1, 2))
  degrees = np.degrees(np.arctan(slopes))
  assert 18 < np.abs(degrees).max() < 20.6 and degrees.min() < -15 and degrees.max() > 15
  moved = apply(augment.affine(pixels=3), batch)[..., 0]
  middles = (moved * rows).sum((1, 2)) / moved.sum((1, 2))
  assert 2.8 < np.abs(middles).max() <= 3.001 and middles.min() < -2 and middles.max() > 2
  zoomed = apply(augment.affine(zoom=0.2), batch)[..., 0][:, 16].sum(1) / 25
  assert 0.78 < zoomed.min() < 0.85 and 1.15 < zoomed.max() < 1.22


def test_affine_turns_zooms_and_moves_by_what_is_drawn():
  draw = 2 * uniform(4) - 1
  angle, factor = np.deg2rad(20 * draw[:, 0]), 1 + 0.2 * draw[:, 1]
  images = IMAGES.astype(np.float32)
  expected = RESAMPLED(images, angle, factor, 3 * draw[:, 2:])
  np.testing.assert_allclose(apply(augment.affine(20, 0.2, 3), {**BATCH, 'inputs': images}), expected, atol=1e-2)
  for nothing in (augment.shift(0), augment.crop(0), augment.cutout(0)):
    np.testing.assert_array_equal(apply(nothing), IMAGES)


def test_what_comes_from_far_outside_is_zero():
  for move in (-40.0, 40.0):
    moved = RESAMPLED(IMAGES[:4], jnp.zeros(4), jnp.ones(4), jnp.full((4, 2), move))
    assert not np.asarray(moved).any()


ALL = augment.chain(augment.shift(2), augment.crop(1), augment.flip(), augment.cutout(3), augment.affine(9, 0.1, 1))


@pytest.mark.parametrize('dtype', [np.uint8, np.float32])
def test_an_example_is_changed_the_same_in_any_batch(dtype):
  batch = {**BATCH, 'inputs': IMAGES.astype(dtype)}
  whole = apply(ALL, batch)
  chosen = np.array([31, 7, 200, 8, 8])
  part = apply(ALL, {name: array[chosen] for name, array in batch.items()})
  assert part.dtype == dtype
  np.testing.assert_allclose(part.astype(float), whole[chosen].astype(float), atol=1 if dtype == np.uint8 else 1e-3)
  assert not np.array_equal(whole, batch['inputs'])


def test_a_chain_gives_every_link_a_key_of_its_own():
  """Two flips by the same draw would always undo each other."""
  twice = apply(augment.chain(augment.flip(), augment.flip()))
  assert 120 < sum(not np.array_equal(*pair) for pair in zip(twice, IMAGES, strict=True)) < 280


def test_another_key_changes_and_other_fields_stay():
  one, other = (jax.jit(augment.shift(2))(BATCH, jax.random.key(seed)) for seed in (0, 1))
  assert not np.array_equal(one['inputs'], other['inputs'])
  np.testing.assert_array_equal(one['targets'], BATCH['targets'])


@pytest.mark.parametrize(
  ('make', 'name'),
  [
    (lambda: augment.shift(-1), 'shift=-1'),
    (lambda: augment.crop(-1), 'crop=-1'),
    (lambda: augment.cutout(-1), 'cutout=-1'),
    (lambda: augment.affine(pixels=-1), 'pixels=-1'),
    (lambda: augment.affine(zoom=1.0), 'zoom=1.0'),
    (lambda: augment.affine(degrees=np.nan), 'degrees=nan'),
  ],
)
def test_what_cannot_be_meant_is_refused(make, name):
  with pytest.raises(ConfigError, match=name):
    make()
