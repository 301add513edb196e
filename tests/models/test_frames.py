"""Frames of several steps: what they hold, and that padding still changes nothing."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research.errors import ConfigError
from research.models.frames import Frames, framed
from research.models.rnn import RNN, Padded, SequenceClassifier

SERIES = jax.random.normal(jax.random.key(1), (3, 7, 2))


def test_frames_hold_the_steps_in_order_and_the_last_is_filled():
  frames = framed(SERIES, 3)
  assert frames.shape == (3, 3, 6)
  np.testing.assert_array_equal(frames.reshape(3, 9, 2)[:, :7], SERIES)
  assert (frames.reshape(3, 9, 2)[:, 7:] == 0).all()
  np.testing.assert_array_equal(framed(SERIES, 1), SERIES)


@pytest.mark.parametrize('pooling', ['last', 'mean'])
def test_a_padded_series_is_the_series_itself_whatever_the_padding(pooling):
  model = Frames(SequenceClassifier(RNN(4, cell='gru', bidirectional=True), 2, pooling), 3)
  lengths = jnp.array([7, 4, 3])
  variables = model.init(jax.random.key(0), SERIES)
  logits = model.apply(variables, Padded(SERIES, lengths))
  ended = (np.arange(7) >= np.array(lengths)[:, None])[..., None]
  other = jnp.pad(jnp.where(ended, jnp.nan, SERIES), ((0, 0), (0, 4), (0, 0)), constant_values=9)
  np.testing.assert_allclose(model.apply(variables, Padded(other, lengths)), logits, rtol=1e-5, atol=1e-6)
  for row, length in enumerate(lengths):
    alone = model.apply(variables, SERIES[row : row + 1, :length])
    np.testing.assert_allclose(logits[row], alone[0], rtol=1e-5, atol=1e-6)


def test_frames_of_no_step_are_refused():
  with pytest.raises(ConfigError, match='size=0'):
    Frames(SequenceClassifier(RNN(4), 2), 0).init(jax.random.key(0), SERIES)
