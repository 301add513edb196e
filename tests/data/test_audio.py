"""WAV files, resampling and spectra against scipy and numpy; augmentations against what they promise."""

import io
import struct

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import fft, signal
from scipy.io import wavfile

from research.data import audio
from research.errors import ConfigError, DataError

RANDOM = np.random.default_rng(0)
RATE, WINDOW, HOP, BANDS = 8_000, 256, 128, 40
NOISE = 0.3 * RANDOM.standard_normal((3, 3_000)).astype(np.float32)
KEY = jax.random.key(5)


def wav(samples: np.ndarray, sample_rate: int = RATE) -> bytes:
  """A file as scipy writes it."""
  file = io.BytesIO()
  wavfile.write(file, sample_rate, samples)
  return file.getvalue()


def riff(content: bytes, encoding: int, bits: int, channels: int = 1, extra: bytes = b'') -> bytes:
  """A file made by hand, with a chunk of an odd size before its data."""
  form = struct.pack('<HHIIHH', encoding, channels, RATE, RATE * bits // 8, bits // 8, bits) + extra
  chunks = [(b'fmt ', form), (b'LIST', b'odd'), (b'data', content)]
  body = b''.join(name + struct.pack('<I', len(data)) + data + b'\0' * (len(data) % 2) for name, data in chunks)
  return b'RIFF' + struct.pack('<I', 4 + len(body)) + b'WAVE' + body


def test_integers_and_floats_become_the_same_numbers():
  values = np.array([-1.0, -0.5, 0.0, 0.25, 0.5, 127 / 128])
  files = {
    'u8': wav((values * 128 + 128).astype(np.uint8)),
    'i2': wav((values * 2**15).astype(np.int16)),
    'i4': wav((values * 2**31).astype(np.int32)),
    'f4': wav(values.astype(np.float32)),
    'f8': wav(values),
  }
  three_bytes = b''.join(int(value * 2**23).to_bytes(3, 'little', signed=True) for value in values)
  files['i3'] = riff(three_bytes, 1, 24)
  files['extensible'] = riff(three_bytes, 0xFFFE, 24, extra=struct.pack('<HHIH', 22, 24, 4, 1) + bytes(14))
  for name, data in files.items():
    samples, sample_rate = audio.read_wav(data)
    assert sample_rate == RATE and samples.dtype == np.float32, name
    np.testing.assert_array_equal(samples, values.astype(np.float32), err_msg=name)


def test_channels_are_averaged():
  stereo = RANDOM.integers(-(2**15), 2**15, (50, 2), dtype=np.int16)
  samples, sample_rate = audio.read_wav(wav(stereo, 44_100))
  assert sample_rate == 44_100
  np.testing.assert_allclose(samples, stereo.astype(float).mean(1) / 2**15, rtol=1e-6)


@pytest.mark.parametrize('sample_rate', [1_000, 1_000_000])
def test_the_lowest_and_the_highest_rate_are_read(sample_rate):
  assert audio.read_wav(wav(np.arange(9, dtype=np.int16), sample_rate)).sample_rate == sample_rate


WHOLE = wav(np.arange(100, dtype=np.int16))


@pytest.mark.parametrize(
  ('data', 'message'),
  [
    (b'', 'not a WAV file: starts with nothing'),
    (b'ID3' + bytes(100), 'not a WAV file: starts with 494433'),
    (WHOLE[:-7], "truncated WAV file: its chunk 'data' has 193 of 200 bytes"),
    (WHOLE[:36], 'without a fmt or data chunk'),
    (riff(b'\0' * 8, 7, 8), 'encoding 7 and 8 bits'),
    (riff(b'\0' * 8, 1, 12), 'encoding 1 and 12 bits'),
    (riff(b'\0' * 7, 1, 16), 'not a whole number of'),
    (
      riff(b'\0' * 6, 1, 16, channels=2),
      '3 samples in 2 channels: must not be empty, with as many samples in every channel',
    ),
    (riff(b'', 1, 16), '0 samples'),
    (riff(b'\0' * 8, 1, 16, channels=0), '0 channels'),
    (wav(np.zeros(8, np.int16), 999), 'at 999 Hz'),
    (wav(np.zeros(8, np.int16), 2_000_000), 'at 2000000 Hz: must have at least one, at 1000 to 1000000 Hz'),
    (wav(np.array([0.0, np.nan], np.float32)), 'sample 2 is not finite'),
    (wav(np.array([1e300])), 'sample 1 is not finite in float32'),
  ],
)
def test_what_is_no_recording_is_told(data, message):
  with pytest.raises(DataError, match=message):
    audio.read_wav(data)


def test_a_tag_after_the_file_and_a_stream_without_a_size_are_no_fault():
  stream = bytearray(WHOLE)
  stream[4:8] = stream[40:44] = b'\xff' * 4
  sizes = [WHOLE[:4] + struct.pack('<I', size) + WHOLE[8:] for size in (0, 4)]  # of a writer that never came back
  for data in (WHOLE + b'TAGa title' + bytes(118), bytes(stream), *sizes):
    np.testing.assert_array_equal(audio.read_wav(data).samples, audio.read_wav(WHOLE).samples)


def test_a_file_is_loaded_at_another_rate_and_a_missing_one_is_named(tmp_path):
  path = tmp_path / 'tone.wav'
  path.write_bytes(wav((NOISE[0] * 2**13).astype(np.int16), 16_000))
  batch = audio.load(str(path), RATE)
  expected = signal.resample_poly((NOISE[0] * 2**13).astype(np.int16) / 2**15, 1, 2)
  np.testing.assert_allclose(batch['inputs'][0], expected, atol=1e-5)
  assert batch['lengths'].tolist() == [1_500]
  for name in ('none.wav', 'text.wav'):
    (tmp_path / 'text.wav').write_text('hello')
    with pytest.raises(DataError, match=name):
      audio.load(str(tmp_path / name), RATE)
  assert audio.load(str(path), RATE, 1_500)['inputs'].shape == (1, 1_500)
  with pytest.raises(DataError, match='lasts 0.188 s; must be at least 0.200 s'):
    audio.load(str(path), RATE, 1_600)
  with pytest.raises(ConfigError, match='input'):
    audio.load('', RATE)


@pytest.mark.parametrize(
  ('sample_rate', 'new_rate'), [(8_000, 16_000), (16_000, 8_000), (44_100, 8_000), (8_000, 11_025), (3, 2)]
)
def test_resampling_is_scipys(sample_rate, new_rate):
  ours = audio.resample(jnp.asarray(NOISE), sample_rate, new_rate)
  expected = signal.resample_poly(NOISE.astype(float), new_rate, sample_rate, axis=1)
  assert ours.shape == expected.shape
  np.testing.assert_allclose(ours, expected, atol=1e-5)


def test_resampling_to_the_same_rate_changes_nothing():
  np.testing.assert_array_equal(audio.resample(jnp.asarray(NOISE), 8_000, 8_000), NOISE)


def by_numpy(waveform: np.ndarray) -> np.ndarray:
  """Log-mel spectrum in decibels, frame by frame and band by band."""
  edges = librosa_mel_frequencies(BANDS + 2, RATE / 2)
  window, frequencies = signal.get_window('hann', WINDOW), np.fft.rfftfreq(WINDOW, 1 / RATE)
  rows = []
  for start in range(0, len(waveform) - WINDOW + 1, HOP):
    power = np.abs(np.fft.rfft(waveform[start : start + WINDOW].astype(float) * window)) ** 2
    bands = [
      np.interp(frequencies, edges[i : i + 3], [0, 1, 0]) * 2 / (edges[i + 2] - edges[i]) @ power for i in range(BANDS)
    ]
    rows.append(10 * np.log10(np.maximum(bands, 1e-10)))
  return np.array(rows)


def librosa_mel_frequencies(count: int, highest: float) -> np.ndarray:
  """Slaney's scale as steps: 200 / 3 Hz each up to 1 kHz, then each a factor of 6.4 ** (1 / 27)."""
  scale = np.concatenate([np.arange(15) * 200 / 3, 1_000 * 6.4 ** (np.arange(80) / 27)])
  fine = (
    np.interp(highest, scale, np.arange(95)) if highest <= 1_000 else 15 + 27 * np.log(highest / 1_000) / np.log(6.4)
  )
  return np.array([m * 200 / 3 if m < 15 else 1_000 * 6.4 ** ((m - 15) / 27) for m in np.linspace(0, fine, count)])


def test_phases_past_32_bits_are_resampled():
  waveforms = np.random.default_rng(0).standard_normal((1, 144_000), np.float32)
  found = audio.resample(jnp.asarray(waveforms), 192_001, 16_000)
  np.testing.assert_allclose(found, signal.resample_poly(waveforms, 16_000, 192_001, axis=1), atol=1e-4)


def test_a_long_recording_is_resampled_to_its_end():
  """Sample numbers times the rate would not fit into 32 bits."""
  waveforms = np.random.default_rng(0).normal(size=(1, 6 * 48_001)).astype(np.float32)
  found = jax.jit(audio.resample, static_argnums=(1, 2))(waveforms, 48_001, 8_000)
  np.testing.assert_allclose(found, signal.resample_poly(waveforms, 8_000, 48_001, axis=1), atol=1e-4)


def test_log_mel_is_that_of_numpy():
  ours = audio.log_mel(jnp.asarray(NOISE), RATE, WINDOW, HOP, BANDS)
  expected = np.stack([by_numpy(row) for row in NOISE])
  assert ours.shape == expected.shape == (3, 22, BANDS)
  np.testing.assert_allclose(ours, expected, atol=1e-4)


def test_integers_are_heard_as_the_floats_they_stand_for():
  integers = np.round(NOISE * 2**15).clip(-(2**15), 2**15 - 1).astype(np.int16)
  floats = audio.log_mel(jnp.asarray(integers / np.float32(2**15)), RATE)
  np.testing.assert_allclose(audio.log_mel(jnp.asarray(integers), RATE), floats, atol=1e-4)


def test_mel_bands_begin_where_librosa_says():
  """The table in the documentation of librosa's mel_frequencies(n_mels=40), of 0 to 11,025 Hz."""
  table = [0, 85.317, 170.635, 255.952, 341.269, 426.586, 511.904, 597.221, 682.538, 767.855, 853.173, 938.49]
  edges = audio._hertz(np.linspace(0, audio._mel(11_025), 40))
  np.testing.assert_allclose(edges[:12], table, atol=1e-3)
  np.testing.assert_allclose(edges[-3:], [9_246.028, 10_096.408, 11_025], atol=1e-3)


def test_mel_bands_are_even_below_1000_hertz():
  filters = audio.mel_filters(1_600, 1_600, 7)  # a frequency a hertz
  assert filters.argmax(0).tolist() == [100, 200, 300, 400, 500, 600, 700]
  np.testing.assert_allclose(filters.max(0), 1 / 100)


def test_mfcc_are_the_cosine_transform_of_scipy():
  spectra = audio.log_mel(jnp.asarray(NOISE), RATE)
  expected = fft.dct(np.asarray(spectra, float), type=2, norm='ortho', axis=-1)[..., :13]
  np.testing.assert_allclose(audio.mfcc(spectra), expected, atol=1e-4)


def test_padding_changes_no_valid_frame():
  lengths = np.array([3_000, 1_000, 255])
  features = jax.jit(audio.features(RATE))
  results = []
  for fill in (0.0, 7.0):
    inputs = np.where(np.arange(3_000)[None] < lengths[:, None], NOISE, np.float32(fill))
    results.append(features({'inputs': jnp.asarray(inputs), 'lengths': jnp.asarray(lengths)}))
  np.testing.assert_array_equal(results[0]['lengths'], [22, 6, 0])
  np.testing.assert_array_equal(results[0]['inputs'], results[1]['inputs'])
  alone = features({'inputs': jnp.asarray(NOISE[1:2, :1_000]), 'lengths': jnp.array([1_000])})
  np.testing.assert_allclose(alone['inputs'][0, :6], results[0]['inputs'][1, :6], atol=1e-5)
  np.testing.assert_array_equal(results[0]['inputs'][1, 6:], 0)


def test_features_are_centred_and_spectra_stay():
  batch = {'inputs': jnp.asarray(NOISE), 'lengths': jnp.array([3_000, 2_000, 256])}  # the last of one frame
  once = audio.features(RATE)(batch)
  for row, length in zip(np.asarray(once['inputs']), once['lengths'], strict=True):
    np.testing.assert_allclose(row[:length].mean(0), 0, atol=1e-5)
  twice = audio.features(RATE)(once)
  assert twice['inputs'] is once['inputs'] and twice['lengths'] is once['lengths']


def test_a_gain_or_a_filter_of_the_bands_is_centred_away():
  louder = audio.features(RATE)({'inputs': jnp.asarray(3 * NOISE), 'lengths': jnp.full(3, 3_000)})
  plain = audio.features(RATE)({'inputs': jnp.asarray(NOISE), 'lengths': jnp.full(3, 3_000)})
  np.testing.assert_allclose(louder['inputs'], plain['inputs'], atol=1e-4)


def test_the_mean_of_all_bands_takes_off_a_gain_but_no_filter():
  lengths = jnp.array([3_000, 2_000, 600])
  batch = {'inputs': jnp.asarray(NOISE), 'lengths': lengths}
  spectra = np.asarray(audio.log_mel(batch['inputs'], RATE)) / 10
  found = audio.features(RATE, per_band=False)(batch)
  for row, raw, length in zip(np.asarray(found['inputs']), spectra, found['lengths'], strict=True):
    np.testing.assert_allclose(row[:length], raw[:length] - raw[:length].mean(), atol=1e-5)
    np.testing.assert_array_equal(row[length:], 0)
  louder = audio.features(RATE, per_band=False)({'inputs': 3 * batch['inputs'], 'lengths': lengths})
  np.testing.assert_allclose(louder['inputs'], found['inputs'], atol=1e-4)


def test_stacked_frames_are_joined_in_order():
  spectra = jnp.arange(2 * 7 * 3.0).reshape(2, 7, 3)
  batch = audio.stacked({'inputs': spectra, 'lengths': jnp.array([7, 5])}, 3)
  np.testing.assert_array_equal(batch['inputs'][0, 1], np.concatenate(spectra[0, 3:6]))
  assert batch['inputs'].shape == (2, 2, 9) and batch['lengths'].tolist() == [2, 1]


WAVES = RANDOM.integers(-9_000, 9_000, (200, 600)).astype(np.int16)
LENGTHS = RANDOM.integers(300, 601, 200).astype(np.int32)
BATCH = {
  'inputs': np.where(np.arange(600)[None] < LENGTHS[:, None], WAVES, 0).astype(np.int16),
  'lengths': LENGTHS,
  'index': np.arange(200) * 3,
}


def apply(augmentation, batch=BATCH, key=KEY):
  changed = jax.jit(augmentation)({name: jnp.asarray(array) for name, array in batch.items()}, key)
  return jax.tree.map(np.asarray, changed)


def uniform(key, index) -> np.ndarray:
  """The number in [0, 1) that each example draws."""
  return np.array([jax.random.uniform(jax.random.fold_in(key, number)) for number in index])


def test_a_shift_moves_the_whole_recording():
  new = apply(audio.shift(50))
  offsets = []
  for old, size, moved, length in zip(BATCH['inputs'], LENGTHS, new['inputs'], new['lengths'], strict=True):
    offset = next(at for at in range(-50, 51) if np.array_equal(moved, np.pad(old, 50)[50 - at :][:600]))
    assert length == min(size + offset, 600) and not moved[length:].any()
    offsets.append(offset)
  assert min(offsets) < -45 and max(offsets) > 45 and new['inputs'].dtype == np.int16
  np.testing.assert_array_equal(offsets, np.round((2 * uniform(KEY, BATCH['index']) - 1) * 50))
  np.testing.assert_array_equal(apply(audio.shift(0))['inputs'], BATCH['inputs'])


def test_speed_plays_a_tone_higher_and_shorter_or_lower_and_longer():
  samples = np.arange(4_000)
  tone = np.where(samples < 3_000, 9_000 * np.sin(2 * np.pi * samples / 20), 0).astype(np.int16)
  batch = {'inputs': np.tile(tone, (60, 1)), 'lengths': np.full(60, 3_000), 'index': np.arange(60)}
  new, factors = apply(audio.speed(0.2), batch), []
  for row, length in zip(new['inputs'], new['lengths'], strict=True):
    factors.append(3_000 / length)
    expected = 9_000 * np.sin(2 * np.pi * np.arange(300) * factors[-1] / 20)
    np.testing.assert_allclose(row[:300], expected, atol=500)
    assert not row[length:].any()
  assert 0.8 < min(factors) < 0.83 and 1.17 < max(factors) < 1.201 and new['inputs'].dtype == np.int16
  np.testing.assert_allclose(factors, 1 + 0.2 * (2 * uniform(KEY, np.arange(60)) - 1), rtol=1e-3)
  assert np.array_equal(apply(audio.speed(0.0))['inputs'], BATCH['inputs'])


def test_noise_has_the_drawn_power_and_leaves_padding_alone():
  for decibels in (10.0, 20.0):
    new = apply(audio.noise(decibels, decibels))
    for old, size, noisy in zip(BATCH['inputs'].astype(float), LENGTHS, new['inputs'].astype(float), strict=True):
      ratio = 10 * np.log10((old[:size] ** 2).mean() / ((noisy - old)[:size] ** 2).mean())
      assert abs(ratio - decibels) < 1.5 and not noisy[size:].any()
  loud, noises = (BATCH['inputs'] * 1.0, apply(audio.noise(0.0, 40.0))['inputs'] * 1.0 - BATCH['inputs'])
  drawn = 10 * np.log10((loud**2).sum(1) / (noises**2).sum(1))
  assert min(drawn) < 4 and max(drawn) > 36
  np.testing.assert_allclose(drawn, 40 * uniform(jax.random.fold_in(KEY, 0), BATCH['index']), atol=1.5)


def test_noise_of_floats_is_the_drawn_normal_numbers():
  floats = {**BATCH, 'inputs': (BATCH['inputs'] / 2**15).astype(np.float32)}
  new = apply(audio.noise(5.0, 15.0), floats)['inputs']
  decibels = 5 + 10 * uniform(jax.random.fold_in(KEY, 0), BATCH['index'])
  for number in (0, 7):
    key = jax.random.fold_in(jax.random.fold_in(KEY, 1), BATCH['index'][number])
    old, size = floats['inputs'][number].astype(float), LENGTHS[number]
    std = np.sqrt((old[:size] ** 2).mean() * 10 ** (-decibels[number] / 10))
    noisy = old[:size] + std * np.asarray(jax.random.normal(key, (600,)))[:size]
    np.testing.assert_allclose(new[number, :size], noisy, atol=1e-5)


def test_loud_noise_is_clipped_and_floats_stay_floats():
  loud = {**BATCH, 'inputs': np.full((200, 600), 32_000, np.int16), 'lengths': np.full(200, 600)}
  assert apply(audio.noise(0, 0), loud)['inputs'].max() == 2**15 - 1
  loud['inputs'] = -loud['inputs']
  assert apply(audio.noise(0, 0), loud)['inputs'].min() == -(2**15)
  floats = {**BATCH, 'inputs': BATCH['inputs'] / np.float32(2**15)}
  assert apply(audio.noise(0, 0), floats)['inputs'].dtype == np.float32


SPECTRA = {
  'inputs': np.ones((400, 30, 20), np.float32),
  'lengths': RANDOM.integers(10, 31, 400).astype(np.int32),
  'index': np.arange(400) * 3,
}


def widths(hidden: np.ndarray) -> list[int]:
  return [int(row.sum()) for row in hidden]


def test_spec_augment_hides_whole_bands_and_frames():
  hidden = apply(audio.spec_augment(1, 6, 1, 8), SPECTRA)['inputs'] == 0
  bands, frames = hidden.all(1), hidden.all(2)
  np.testing.assert_array_equal(hidden, bands[:, None] | frames[:, :, None])
  for stretches, most in ((bands, 6), (frames, 8)):
    counts = np.bincount(widths(stretches), minlength=most + 1)
    assert len(counts) == most + 1 and (np.abs(counts - 400 / (most + 1)) < 5 * np.sqrt(400 / (most + 1))).all()
    assert all(np.ptp(np.flatnonzero(row)) + 1 == row.sum() for row in stretches if row.any()), 'in one stretch'
  assert all(not row[length:].any() for row, length in zip(frames, SPECTRA['lengths'], strict=True))
  assert bands[:, 0].any() and bands[:, -1].any() and frames[:, 0].any()


def test_a_share_bounds_the_frames_that_are_hidden():
  hidden = (apply(audio.spec_augment(0, 0, 1, 30, max_fraction=0.2), SPECTRA)['inputs'] == 0).all(2)
  assert (hidden.sum(1) <= 0.2 * SPECTRA['lengths']).all() and hidden.any()
  assert not (apply(audio.spec_augment(0, 0, 0, 0), SPECTRA)['inputs'] == 0).any()


@pytest.mark.parametrize('augmentation', [audio.shift(40), audio.noise(0, 20), audio.speed(0.1)])
def test_an_example_is_changed_the_same_in_any_batch(augmentation):
  chosen = np.array([3, 7, 7, 100])
  whole, part = apply(augmentation), apply(augmentation, {name: array[chosen] for name, array in BATCH.items()})
  np.testing.assert_allclose(part['inputs'], whole['inputs'][chosen], atol=1)
  assert not np.array_equal(whole['inputs'], apply(augmentation, key=jax.random.key(6))['inputs'])


def test_spec_augment_is_the_same_in_any_batch():
  chosen, augmentation = np.array([3, 7, 7, 100]), audio.spec_augment(2, 4, 2, 5)
  part = apply(augmentation, {name: array[chosen] for name, array in SPECTRA.items()})
  np.testing.assert_array_equal(part['inputs'], apply(augmentation, SPECTRA)['inputs'][chosen])


@pytest.mark.parametrize(
  ('make', 'name'),
  [
    (lambda: audio.shift(-1), 'shift=-1'),
    (lambda: audio.speed(1.0), 'speed=1.0'),
    (lambda: audio.noise(20.0, 10.0), r'noise=\(20.0, 10.0\): must be two finite numbers in increasing order'),
    (lambda: audio.noise(0.0, np.nan), r'noise=\(0.0, nan\)'),
    (lambda: audio.noise(-np.inf, 0.0), r'noise=\(-inf, 0.0\)'),
    (lambda: audio.spec_augment(-1, 2, 1, 2), 'num_freq_masks=-1'),
    (lambda: audio.spec_augment(1, 2, 1, -2), 'time_mask=-2'),
    (lambda: audio.spec_augment(1, 2, 1, 2, max_fraction=1.1), 'max_fraction=1.1'),
    (lambda: audio.resample(jnp.zeros((1, 9)), 0, 8_000), 'orig_rate=0: must be a whole number of at least 1'),
    (lambda: audio.resample(jnp.zeros((1, 9)), 8_000, 0), 'new_rate=0'),
    (lambda: audio.frame_counts(jnp.array([9]), 0, 2), 'window_length=0'),
    (lambda: audio.power_spectra(jnp.zeros((1, 9)), 4, 0), 'hop_length=0'),
    (lambda: audio.mel_filters(8_000, 256, 0), 'num_mels=0'),
    (lambda: audio.mel_filters(-8_000, 256, 40), 'sample_rate=-8000'),
    (lambda: audio.features(8_000, num_mels=200), 'num_mels=200: 25 of the bands contain no frequency of a 256-sample'),
    (lambda: audio.features(8_000, hop_length=-1), 'hop_length=-1'),
    (lambda: audio.mfcc(jnp.zeros((1, 5, 12)), 13), 'num_coefficients=13: must be a whole number from 1 to 12'),
    (lambda: audio.stacked({'inputs': jnp.zeros((1, 5, 12))}, 0), 'frames=0'),
  ],
)
def test_what_cannot_be_meant_is_refused(make, name):
  with pytest.raises(ConfigError, match=name):
    make()
