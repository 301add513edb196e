"""The experiments with spoken digits: what they say of a file, and what padding may not change."""

import dataclasses
import io

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.io import wavfile

from experiments.ctc_fsdd_strings import config as strings
from experiments.lstm_fsdd import config as digits
from experiments.lstm_fsdd_speakers import config as speakers
from research.data import audio, speech
from research.errors import ConfigError, DataError
from research.evaluate import transcripts
from research.train.experiment import Request

KEY = jax.random.key(0)
FITTED = {'class_names': speech.DIGITS}
SOUND = (6_000 * np.random.default_rng(0).standard_normal((2, 6_000))).astype(np.int16)
BATCH = {'inputs': jnp.asarray(SOUND), 'lengths': jnp.array([6_000, 2_000])}


@pytest.fixture
def path(tmp_path):
  """A file of twice the rate of the recordings."""
  file = io.BytesIO()
  wavfile.write(file, 2 * speech.RATE, SOUND[0])
  (tmp_path / 'sound.wav').write_bytes(file.getvalue())
  return str(tmp_path / 'sound.wav')


def variables_of(config, preprocess):
  return jax.jit(config.network(FITTED).model.init)(KEY, preprocess(BATCH)['inputs'])


def test_a_digit_is_said_with_its_probability(path):
  config = digits.get_config('tiny')
  variables = variables_of(config, config.preprocess)
  ((name, text),) = config.sampler(FITTED)(variables, KEY, Request(input=path))
  heard = config.preprocess(audio.load(path, speech.RATE))
  chances = jax.nn.softmax(jax.jit(config.network(FITTED).model.apply)(variables, heard['inputs']))[0]
  assert (name, text) == ('digit', f'{chances.argmax()} ({chances.max():.1%})')


def test_a_string_is_written_down_and_pictured(path):
  config = strings.get_config('tiny')
  variables = variables_of(config, config.preprocess)
  (name, text), (other, figure) = config.sampler(FITTED)(variables, KEY, Request(input=path))
  heard = config.preprocess(audio.load(path, speech.RATE))
  logits = jax.jit(config.network(FITTED).model.apply)(variables, heard['inputs'])
  found = transcripts.transcribed(logits, heard['lengths'], config.beam_size, logits.shape[1], strings.BLANK)
  assert text == transcripts.text(speech.DIGITS, np.asarray(found['labels'][0]), int(found['length'][0]))
  assert (name, other) == ('digits', 'heard') and len(figure.axes) == 2


def test_a_string_of_more_than_a_hundred_digits_is_written_whole(monkeypatch, path):
  spelled = 20 * jax.nn.one_hot(jnp.arange(240)[None] % 2 * strings.BLANK, strings.BLANK + 1)
  monkeypatch.setattr(strings.SequenceLabeler, 'apply', lambda *given, **options: spelled)
  monkeypatch.setattr(strings.Config, 'preprocess', lambda config, batch: {'inputs': (), 'lengths': jnp.array([240])})
  (_, text), _ = strings.get_config('tiny').sampler(FITTED)({}, KEY, Request(input=path))
  assert text.split() == ['0'] * 120


@pytest.mark.parametrize('module', [digits, strings])
def test_files_that_cannot_be_heard_are_named(module, tmp_path):
  sample = module.get_config('tiny').sampler(FITTED)
  (tmp_path / 'text.wav').write_text('hello')
  for name, error in (('text.wav', 'is not a WAV file'), ('none.wav', 'No such file')):
    with pytest.raises(DataError, match=f'{name}.*{error}'):
      next(sample({}, KEY, Request(input=str(tmp_path / name))))
  with pytest.raises(ConfigError, match='input'):
    next(sample({}, KEY, Request()))
  with pytest.raises(ConfigError, match="--prompt='one': is not used by this model; it takes --input"):
    next(sample({}, KEY, Request(prompt='one', input='one.wav')))
  with pytest.raises(ConfigError, match='--temperature=0.0: is not used by this model; it takes --input'):
    next(sample({}, KEY, Request(input='one.wav', temperature=0.0)))


def test_what_follows_a_recording_changes_no_prediction():
  config = digits.get_config('tiny')
  variables = variables_of(config, config.preprocess)
  apply = jax.jit(lambda batch: config.network(FITTED).model.apply(variables, config.preprocess(batch)['inputs']))
  loud = {**BATCH, 'inputs': BATCH['inputs'].at[1, 2_000:].set(30_000)}
  np.testing.assert_array_equal(apply(loud), apply(BATCH))
  np.testing.assert_allclose(apply({name: array[1:] for name, array in BATCH.items()}), apply(BATCH)[1:], atol=1e-5)


def test_every_fold_is_a_speaker():
  config = speakers.get_config()
  same = {field.name for field in dataclasses.fields(digits.Config)} - {'steps'}
  assert all(getattr(config, name) == getattr(digits.get_config(), name) for name in same)
  for change in ({'fold': 6}, {'fold': -1}, {'num_folds': 5}):
    with pytest.raises(ConfigError, match='one for each speaker'):
      dataclasses.replace(config, **change).data()
