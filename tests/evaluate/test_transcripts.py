"""Error rates and pictures of transcripts, read back from their axes."""

import jax.numpy as jnp
import numpy as np
import pytest

from research.evaluate import figures, transcripts

RATE = 8_000
CLASSES = tuple('ab')
# Frames that say a, blank, b, b; then b, blank, b.
SPELT = np.array([[0, 2, 1, 1], [1, 2, 1, 2]])
LOGITS = 9 * np.eye(3, dtype=np.float32)[SPELT]
WAVES = (3_000 * np.random.default_rng(0).standard_normal((2, 4_000))).astype(np.int16)
ROWS = {
  'inputs': WAVES,
  'lengths': np.array([4_000, 3_000]),
  'targets': np.array([[0, 1, 0], [1, 0, 0]]),
  'target_lengths': np.array([2, 1]),
}


@pytest.fixture(scope='module')
def outputs():
  made = transcripts.transcribed(jnp.asarray(LOGITS), jnp.array([4, 3]), 4, 5, 2)
  return {name: np.asarray(array) for name, array in made.items()}


def test_what_is_transcribed(outputs):
  assert [transcripts.text(CLASSES, *pair) for pair in zip(outputs['labels'], outputs['length'], strict=True)] == [
    'a b',
    'b b',
  ]
  np.testing.assert_allclose(np.exp(outputs['log_probabilities']).sum(-1), 1, rtol=1e-5)
  assert (outputs['score'] < 0).all() and (outputs['score'] > -0.1).all() and outputs['frames'].tolist() == [4, 3]


def test_error_rates_are_over_labels_and_over_strings(outputs):
  assert dict(transcripts.error_rates(outputs, ROWS)) == {
    'beam_label_error_rate': 1 / 3,
    'beam_string_error_rate': 1 / 2,
  }


def test_the_picture_names_what_was_heard_where_it_was(outputs):
  ((name, figure),) = transcripts.heard(CLASSES, RATE, max_count=3)(outputs, ROWS)
  uppers, lowers = figure.axes[:2], figure.axes[2:]
  assert name == 'heard' and [axis.get_title() for axis in uppers] == ['said a b, heard a b', 'said b, heard b b']
  words = [(text.get_text(), round(text.get_position()[0], 4)) for text in lowers[0].texts]
  assert words == [('a', 0.0625), ('b', 0.375)], 'half a second in four frames'
  assert len(lowers[0].lines) == 2 and lowers[0].lines[0].get_ydata()[0] > 0.9
  assert uppers[1].images[0].get_array().shape == (40, (3_000 - 256) // 128 + 1), 'padding is not shown'
  one = transcripts.picture(WAVES[0], {key: array[0] for key, array in outputs.items()}, CLASSES, RATE)
  assert [text.get_text() for text in one.axes[1].texts] == ['a', 'b']
  ((_, figure),) = transcripts.heard(CLASSES, RATE, max_count=1)(outputs, ROWS)
  assert [axis.get_title() for axis in figure.axes] == ['said a b, heard a b', '']


def test_a_label_is_named_above_one_half_alone():
  chances = np.array([[0.5, 0.5], [0.6, 0.4], [0.7, 0.3], [0.2, 0.8], [0.9, 0.1]])
  upper, lower = figures.make_figure(1, 2, (3, 2))[1]
  transcripts.timeline(upper, lower, WAVES[0], np.log(chances), CLASSES, RATE)
  words = [(text.get_text(), round(text.get_position()[0], 4)) for text in lower.texts]
  assert words == [('a', 0.2), ('a', 0.45), ('b', 0.35)] and lower.get_xlim() == (0, 0.5)


def test_waveforms_are_pictured_as_spectra():
  tone = (9_000 * np.sin(2 * np.pi * 500 * np.arange(4_000) / RATE)).astype(np.int16)
  rows = {'inputs': np.stack([tone, WAVES[0]]), 'targets': np.array([1, 0])}
  report = figures.mistakes(CLASSES, picture=transcripts.spectra(RATE))
  ((_, figure),) = report(np.array([[3.0, 0.0], [2.0, 0.0]]), rows)
  (shown,) = [axis.images[0].get_array() for axis in figure.axes if axis.images]
  assert shown.shape == (40, 30) and shown.max() - shown.min() <= 60.001
  assert 25 < shown.sum(1).argmax() < 35, 'low tones are at the bottom'
