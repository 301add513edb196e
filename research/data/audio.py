"""Audio: WAV files, resampling, log-mel spectrograms, MFCCs, and augmentation inside the step.

A waveform is float32 in [-1, 1) or int16; batches are [batch, samples] and zero-padded, with `lengths` [batch] of valid
samples. A frame starts every `hop_length` samples and counts only if it lies within the valid ones, so padding never
changes a valid frame.
"""

import math
import struct
from collections.abc import Callable
from functools import lru_cache, partial
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Bool, Float, Int, Key, Num

from research.data.augment import Augmentation
from research.errors import ConfigError, DataError, check_count, check_counts, check_range
from research.random import per_example
from research.types import Batch

Waveforms = Num[Array, 'batch samples']
Spectra = Float[Array, 'batch frames bands']
Lengths = Int[Array, ' batch']

_PCM, _FLOAT, _EXTENSIBLE = 1, 3, 0xFFFE
_RATES = 1_000, 1_000_000  # supported sample rates
_UNKNOWN = 2**32 - 1  # size in the header of a stream
_AMPLITUDE = 2**15  # of int16 samples
_QUIET = 1e-10  # floor of the power, as in librosa


class Recording(NamedTuple):
  """A mono recording."""

  samples: np.ndarray  # float32 [samples]
  sample_rate: int  # samples per second


def read_wav(data: bytes) -> Recording:
  """Reads a WAV file of 8, 16, 24 or 32-bit PCM or 32 or 64-bit floats, averaging its channels.

  Integers become floats in [-1, 1). Source: Microsoft and IBM (1991), 'Multimedia programming interface', ch. 3.

  Raises:
    DataError: not a WAV file, or one that is unsupported, truncated, empty or not finite; the caller names the file.
  """
  chunks = _chunks(data)
  if 'fmt ' not in chunks or 'data' not in chunks or len(chunks['fmt ']) < 16:
    raise DataError('is a WAV file without a fmt or data chunk')
  encoding, channels, sample_rate, _, _, bits = struct.unpack('<HHIIHH', chunks['fmt '][:16])
  if encoding == _EXTENSIBLE and len(chunks['fmt ']) >= 26:
    encoding = int.from_bytes(chunks['fmt '][24:26], 'little')  # the subformat starts with the encoding
  if not channels or not _RATES[0] <= sample_rate <= _RATES[1]:
    least, most = _RATES
    raise DataError(
      f'is a WAV file with {channels} channels at {sample_rate} Hz: must have at least one, at {least} to {most} Hz'
    )
  samples = _samples(chunks['data'], encoding, bits)
  if not len(samples) or len(samples) % channels:
    found = f'{len(samples)} samples in {channels} channels'
    raise DataError(f'is a WAV file with {found}: must not be empty, with as many samples in every channel')
  if not np.isfinite(samples).all():
    raise DataError(f'is a WAV file whose sample {np.argmin(np.isfinite(samples)) + 1} is not finite in float32')
  return Recording(samples.reshape(-1, channels).mean(axis=1, dtype=np.float64).astype(np.float32), sample_rate)


def load(path: str, sample_rate: int, min_length: int = 1) -> dict[str, Array]:
  """A batch of one recording, from a WAV file of any rate: `inputs` float32 [1, samples] at `sample_rate`, `lengths`.

  Raises:
    ConfigError: an empty path.
    DataError: as `read_wav` does, with the path; a missing file, or fewer than `min_length` samples.
  """
  if not path:
    raise ConfigError('input: must be the path of a WAV file')
  try:
    recording = read_wav(Path(path).read_bytes())
  except OSError as error:
    raise DataError(f'{path}: {error.strerror}') from error
  except DataError as error:
    raise DataError(f'{path}: {error}') from error
  inputs = resample(jnp.asarray(recording.samples)[None], recording.sample_rate, sample_rate)
  if inputs.shape[1] < min_length:
    seconds, needed = inputs.shape[1] / sample_rate, min_length / sample_rate
    raise DataError(f'{path}: lasts {seconds:.3f} s; must be at least {needed:.3f} s')
  return {'inputs': inputs, 'lengths': jnp.array([inputs.shape[1]])}


def _chunks(data: bytes) -> dict[str, bytes]:
  """The first chunk with each name in a RIFF WAVE file."""
  if data[:4] != b'RIFF' or data[8:12] != b'WAVE':
    raise DataError(f'is not a WAV file: starts with {data[:12].hex() or "nothing"}, not with RIFF....WAVE')
  chunks, start, whole = {}, 12, int.from_bytes(data[4:8], 'little')
  if 4 < whole < _UNKNOWN:
    data = data[: 8 + whole]  # trailing data, such as tags, are not chunks
  while start + 8 <= len(data):
    name, size = data[start : start + 4].decode('latin-1'), int.from_bytes(data[start + 4 : start + 8], 'little')
    content = data[start + 8 : start + 8 + size]
    if len(content) < size and (name, size) != ('data', _UNKNOWN):
      raise DataError(f'is a truncated WAV file: its chunk {name!r} has {len(content)} of {size} bytes')
    chunks.setdefault(name, content)
    start += 8 + size + size % 2
  return chunks


def _samples(content: bytes, encoding: int, bits: int) -> np.ndarray:
  """Interleaved samples of all channels as floats; integers are scaled to [-1, 1)."""
  if (encoding, bits) not in {*((_PCM, bits) for bits in (8, 16, 24, 32)), (_FLOAT, 32), (_FLOAT, 64)}:
    raise DataError(f'is a WAV file with encoding {encoding} and {bits} bits: convert it to 16-bit PCM')
  if len(content) * 8 % bits:
    raise DataError(f'is a WAV file whose {len(content)} bytes are not a whole number of {bits}-bit samples')
  if encoding == _FLOAT:
    with np.errstate(over='ignore'):  # reported by the caller
      return np.frombuffer(content, f'<f{bits // 8}').astype(np.float32)
  if bits == 8:
    return (np.frombuffer(content, np.uint8) - 128.0) / 128
  wide = np.zeros((len(content) * 8 // bits, 4), np.uint8)  # the highest bytes of 32 bits hold the sample
  wide[:, 4 - bits // 8 :] = np.frombuffer(content, np.uint8).reshape(-1, bits // 8)
  return wide.view('<i4')[:, 0] / 2.0**31


@partial(jax.jit, static_argnames=('orig_rate', 'new_rate'))
def resample(
  waveforms: Float[Array, 'batch samples'], orig_rate: int, new_rate: int
) -> Float[Array, 'batch resampled']:
  """Resamples waveforms from `orig_rate` to `new_rate` Hz, to ceil(samples * new_rate / orig_rate) samples.

  A polyphase filter: each output sample sums only the inputs that the filter reaches. Equal to
  `scipy.signal.resample_poly`, with the same filter.
  """
  check_counts(orig_rate=orig_rate, new_rate=new_rate)
  up, down = new_rate // math.gcd(orig_rate, new_rate), orig_rate // math.gcd(orig_rate, new_rate)
  if up == down:
    return waveforms
  half = 10 * max(up, down)
  taps, reach = jnp.asarray(_low_pass(up, down), waveforms.dtype), half // up + 1
  length = -(-waveforms.shape[1] * up // down)
  # Output m is the sum of taps[half + m * down - source * up] * in[source] over the inputs. The quotient and remainder
  # of m * down by up come from a table of the phases m % up, in 64 bits, as the product overflows in 32.
  quotient, rest = (jnp.asarray(part, jnp.int32) for part in np.divmod(np.arange(up, dtype=np.int64) * down, up))
  turn, phase = (part[:, None] for part in jnp.divmod(jnp.arange(length), up))
  tap = jnp.arange(-reach, reach)[None]
  source = turn * down + quotient[phase] - tap
  place = half + rest[phase] + tap * up
  weight = jnp.where((place >= 0) & (place <= 2 * half), taps[jnp.clip(place, 0, 2 * half)], 0)
  padded = jnp.pad(waveforms, ((0, 0), (reach, reach)))
  # A product and a sum, which fuse: the [batch, length, taps] array is never materialized.
  return jnp.sum(padded[:, source + reach] * weight[None], axis=-1)


@lru_cache(maxsize=8)
def _low_pass(up: int, down: int) -> np.ndarray:
  """Windowed sinc with 20 * max(up, down) + 1 taps and a Kaiser window of beta 5."""
  from scipy.signal import firwin  # slow to import

  return up * firwin(20 * max(up, down) + 1, 1 / max(up, down), window=('kaiser', 5.0))


def frame_counts(lengths: Lengths, window_length: int, hop_length: int) -> Lengths:
  """Number of frames that lie entirely within the valid samples."""
  check_counts(window_length=window_length, hop_length=hop_length)
  return jnp.maximum((lengths - window_length) // hop_length + 1, 0)


@partial(jax.jit, static_argnames=('window_length', 'hop_length'))
def power_spectra(
  waveforms: Waveforms, window_length: int, hop_length: int
) -> Float[Array, 'batch frames frequencies']:
  """Power spectra of Hann-windowed frames, at `window_length` // 2 + 1 frequencies.

  Matches librosa's `stft(center=False)` with n_fft = `window_length`, squared.
  """
  check_counts(window_length=window_length, hop_length=hop_length)
  scale = _AMPLITUDE if jnp.issubdtype(waveforms.dtype, jnp.integer) else 1
  count = max((waveforms.shape[1] - window_length) // hop_length + 1, 0)
  places = jnp.arange(count)[:, None] * hop_length + jnp.arange(window_length)[None]
  hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(window_length) / window_length)
  frames = waveforms[:, places].astype(jnp.float32) * jnp.asarray(hann / scale, jnp.float32)[None, None]
  spectra = jnp.fft.rfft(frames)
  return spectra.real**2 + spectra.imag**2


def log_mel(
  waveforms: Waveforms, sample_rate: int, window_length: int = 256, hop_length: int = 128, num_mels: int = 40
) -> Float[Array, 'batch frames bands']:
  """Log-mel spectrogram in decibels: 10 log10 of the power in `num_mels` bands of equal width on the mel scale.

  librosa's `power_to_db(melspectrogram(center=False), amin=1e-10, top_db=None)` with its default (Slaney's) mel
  scale and norm.
  """
  power = power_spectra(waveforms, window_length, hop_length) @ jnp.asarray(
    mel_filters(sample_rate, window_length, num_mels), jnp.float32
  )
  return 10 * jnp.log10(jnp.maximum(power, _QUIET))


def mfcc(log_mels: Spectra, num_coefficients: int = 13) -> Float[Array, 'batch frames coefficients']:
  """Mel-frequency cepstral coefficients: the first coefficients of an orthonormal DCT-II over the bands of `log_mel`.

  Source: Davis and Mermelstein (1980), IEEE Trans. ASSP 28(4); librosa's `mfcc(S=log_mels)`.
  """
  num_mels = log_mels.shape[-1]
  check_count('num_coefficients', num_coefficients, at_most=num_mels)
  angle = np.pi * np.arange(num_coefficients) * (np.arange(num_mels)[:, None] + 0.5) / num_mels
  scale = np.where(np.arange(num_coefficients) == 0, np.sqrt(1 / num_mels), np.sqrt(2 / num_mels))
  return log_mels @ jnp.asarray(np.cos(angle) * scale, log_mels.dtype)


@lru_cache(maxsize=8)
def mel_filters(sample_rate: int, window_length: int, num_mels: int) -> np.ndarray:
  """Triangular filters of area 1 over the frequencies 0 to `sample_rate` / 2: [window_length // 2 + 1, num_mels].

  Source: Slaney (1998), 'Auditory toolbox', the default of librosa's `filters.mel`.

  Raises ConfigError for more bands than the transform resolves: a band without a frequency would always be silent.
  """
  check_counts(sample_rate=sample_rate, window_length=window_length, num_mels=num_mels)
  frequencies = np.arange(window_length // 2 + 1)[:, None] * sample_rate / window_length
  edges = _hertz(np.linspace(0, _mel(sample_rate / 2), num_mels + 2))
  rise = (frequencies - edges[:-2]) / np.diff(edges)[:-1]
  fall = (edges[2:] - frequencies) / np.diff(edges)[1:]
  triangles = np.maximum(np.minimum(rise, fall), 0)
  if empty := int((triangles.max(axis=0) == 0).sum()):
    raise ConfigError(
      f'num_mels={num_mels}: {empty} of the bands contain no frequency of a {window_length}-sample window; use fewer'
    )
  return triangles * 2 / (edges[2:] - edges[:-2])


def _mel(hertz: float) -> float:
  """Slaney's mel scale: linear up to 1000 Hz (15 mels), then 27 mels per factor of 6.4."""
  return hertz * 3 / 200 if hertz < 1000 else 15 + 27 * np.log(hertz / 1000) / np.log(6.4)


def _hertz(mels: np.ndarray) -> np.ndarray:
  return np.where(mels < 15, mels * 200 / 3, 1000 * np.exp((mels - 15) * np.log(6.4) / 27))


def features(
  sample_rate: int, window_length: int = 256, hop_length: int = 128, num_mels: int = 40, per_band: bool = True
) -> Callable[[Batch], dict[str, Array]]:
  """Function of a batch that turns its waveforms into centered log-mel spectra, in tens of decibels.

  `inputs` [batch, samples] become [batch, frames, bands], minus the means of `centered`, and `lengths` count frames.
  Spectra are returned unchanged, so that augmentation may come first.

  Raises ConfigError as `mel_filters` does.
  """
  check_counts(window_length=window_length, hop_length=hop_length)
  mel_filters(sample_rate, window_length, num_mels)  # raises for too many bands

  def preprocess(batch: Batch) -> dict[str, Array]:
    if batch['inputs'].ndim == 3:
      return {**batch}
    lengths = frame_counts(batch['lengths'], window_length, hop_length)
    spectra = log_mel(batch['inputs'], sample_rate, window_length, hop_length, num_mels)
    return {**batch, 'inputs': centered(spectra, lengths, per_band) / 10, 'lengths': lengths}

  return preprocess


def stacked(batch: Batch, frames: int) -> dict[str, Array]:
  """The batch with groups of `frames` frames concatenated, so a recurrent network takes fewer steps."""
  check_count('frames', frames)
  spectra = batch['inputs']
  count = spectra.shape[1] // frames
  joined = spectra[:, : count * frames].reshape(len(spectra), count, frames * spectra.shape[2])
  return {**batch, 'inputs': joined, 'lengths': batch['lengths'] // frames}


def centered(spectra: Spectra, lengths: Lengths, per_band: bool = True) -> Spectra:
  """Subtracts the mean over the valid frames, per band or over all bands; padding becomes 0.

  Per-band means remove the channel and the speaker, but for a single word also part of its sound; the overall mean
  removes only its loudness. Source: Atal (1974), J. Acoust. Soc. Am. 55(6): cepstral mean subtraction, here before the
  transform.
  """
  valid = (jnp.arange(spectra.shape[1])[None] < lengths[:, None])[..., None]
  total = jnp.sum(jnp.where(valid, spectra, 0), axis=1, keepdims=True)
  if not per_band:
    total = total.mean(-1, keepdims=True)
  return jnp.where(valid, spectra - total / jnp.maximum(lengths, 1)[:, None, None], 0)


def shift(samples: int) -> Augmentation:
  """Shifts each waveform by up to `samples` later, after silence, or earlier, truncating its start."""
  check_count('shift', samples, at_least=0)

  def augment(batch: Batch, key: Key[Array, '']) -> Batch:
    offset = jnp.round((2 * _uniform(key, batch['index'], ()) - 1) * samples).astype(jnp.int32)
    padded = jnp.pad(batch['inputs'], ((0, 0), (samples, samples)))
    moved = jax.vmap(partial(jax.lax.dynamic_slice, slice_sizes=batch['inputs'].shape[1:]))
    lengths = jnp.clip(batch['lengths'] + offset, 0, batch['inputs'].shape[1])
    return {**batch, 'inputs': moved(padded, (samples - offset)[:, None]), 'lengths': lengths}

  return augment


def speed(fraction: float) -> Augmentation:
  """Resamples each waveform to a speed (and pitch) of 1 - `fraction` to 1 + `fraction`.

  Interpolates linearly; longer waveforms are truncated. Source: Ko, Peddinti, Povey and Khudanpur
  (2015), 'Audio augmentation for speech recognition'.
  """
  check_range('speed', fraction, below=1)

  def augment(batch: Batch, key: Key[Array, '']) -> Batch:
    waveforms, lengths = batch['inputs'], batch['lengths']
    factor = 1 + fraction * (2 * _uniform(key, batch['index'], ()) - 1)
    place = jnp.arange(waveforms.shape[1])[None] * factor[:, None]
    valid = place <= lengths[:, None] - 1
    before = jnp.where(valid, place, 0).astype(jnp.int32)
    after = jnp.minimum(before + 1, waveforms.shape[1] - 1)
    low, high = (jnp.take_along_axis(waveforms, at, axis=1).astype(jnp.float32) for at in (before, after))
    played = jnp.where(valid, low + (place - before) * (high - low), 0)
    return {**batch, 'inputs': _rounded(played, waveforms.dtype), 'lengths': valid.sum(1, dtype=lengths.dtype)}

  return augment


def noise(min_snr_db: float, max_snr_db: float) -> Augmentation:
  """Adds white noise to the valid samples, at a signal-to-noise ratio uniform from `min_snr_db` to `max_snr_db`."""
  if not -math.inf < min_snr_db <= max_snr_db < math.inf:
    raise ConfigError(f'noise={(min_snr_db, max_snr_db)}: must be two finite numbers in increasing order')

  def augment(batch: Batch, key: Key[Array, '']) -> Batch:
    waveforms = batch['inputs'].astype(jnp.float32)
    valid = jnp.arange(waveforms.shape[1])[None] < batch['lengths'][:, None]
    power = jnp.sum(jnp.where(valid, waveforms**2, 0), axis=1) / jnp.maximum(batch['lengths'], 1)
    snr_db = min_snr_db + (max_snr_db - min_snr_db) * _uniform(jax.random.fold_in(key, 0), batch['index'], ())
    std = jnp.sqrt(power * 10 ** (-snr_db / 10))
    keys = per_example(jax.random.fold_in(key, 1), batch['index'])
    drawn = jax.vmap(partial(jax.random.normal, shape=waveforms.shape[1:]))(keys)
    noisy = jnp.where(valid, waveforms + std[:, None] * drawn, 0)
    return {**batch, 'inputs': _rounded(noisy, batch['inputs'].dtype)}

  return augment


def spec_augment(
  num_freq_masks: int, freq_mask: int, num_time_masks: int, time_mask: int, max_fraction: float = 1.0
) -> Augmentation:
  """Masks `num_freq_masks` ranges of up to `freq_mask` bands and `num_time_masks` ranges of up to `time_mask` frames.

  No time mask is longer than `max_fraction` of an example's valid frames. Expects spectra in `inputs`
  [batch, frames, bands], with mean 0 since masked entries become 0, and `lengths` in frames. Source: Park et al.
  (2019), 'SpecAugment', sec. 2, arXiv:1904.08779.
  """
  for name, value in (
    ('num_freq_masks', num_freq_masks),
    ('freq_mask', freq_mask),
    ('num_time_masks', num_time_masks),
    ('time_mask', time_mask),
  ):
    check_count(name, value, at_least=0)
  check_range('max_fraction', max_fraction, at_most=1)

  def augment(batch: Batch, key: Key[Array, '']) -> Batch:
    spectra, index = batch['inputs'], batch['index']
    draws = _uniform(key, index, (2, num_freq_masks + num_time_masks))
    count = jnp.full_like(batch['lengths'], spectra.shape[2])
    widest = jnp.minimum(time_mask, max_fraction * batch['lengths'])
    hidden_bands = _stretches(draws[..., :num_freq_masks], jnp.minimum(freq_mask, count), count, spectra.shape[2])
    hidden_frames = _stretches(draws[..., num_freq_masks:], widest, batch['lengths'], spectra.shape[1])
    return {**batch, 'inputs': jnp.where(hidden_frames[:, :, None] | hidden_bands[:, None], 0, spectra)}

  return augment


def _stretches(
  draws: Float[Array, 'batch 2 masks'], widest: Num[Array, ' batch'], lengths: Lengths, size: int
) -> Bool[Array, 'batch size']:
  """Which of `size` positions lie in ranges of uniform width up to `widest` at uniform positions below `lengths`."""
  width = jnp.floor(draws[:, 0] * (jnp.floor(widest)[:, None] + 1))
  start = jnp.floor(draws[:, 1] * (lengths[:, None] - width + 1))
  place = jnp.arange(size)[None, :, None]
  return ((place >= start[:, None]) & (place < (start + width)[:, None])).any(-1)


def _uniform(key: Key[Array, ''], index: Int[Array, ' batch'], shape: tuple[int, ...]) -> Float[Array, 'batch ...']:
  """Uniform numbers in [0, 1), with a separate key per example."""
  return jax.vmap(partial(jax.random.uniform, shape=shape))(per_example(key, index))


def _rounded(waveforms: Float[Array, 'batch samples'], dtype: jnp.dtype) -> Waveforms:
  """The waveforms as `dtype`; integers are rounded and clipped."""
  if not jnp.issubdtype(dtype, jnp.integer):
    return waveforms.astype(dtype)
  limits = jnp.iinfo(dtype)
  return jnp.clip(jnp.round(waveforms), limits.min, limits.max).astype(dtype)
