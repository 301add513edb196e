"""Transcripts of a speech recognizer: error rates, and figures of when labels were recognized.

The outputs are those of `transcribed`: the log-probabilities of every frame, and the best string of labels of a beam.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float, Int

from research.data.audio import log_mel
from research.evaluate.figures import ACCENT, FAINT, INK, SMALL, THIN, make_figure, plain
from research.evaluate.reports import Highest, Report, Streamed, reading
from research.ops.ctc import prefix_beam_search
from research.ops.edit_distance import edit_distance
from research.types import Rows

if TYPE_CHECKING:
  from matplotlib.figure import Figure

Outputs = Mapping[str, np.ndarray]
TIMELINE = (4.2, 2.0)  # inches, of the spectrum and of the probabilities


def transcribed(
  logits: Float[Array, 'batch frames classes'],
  lengths: Int[Array, ' batch'],
  beam_size: int,
  max_length: int,
  blank_id: int,
) -> dict[str, Array]:
  """Outputs for the reports: `log_probabilities` [batch, frames, classes], `frames`, the best `labels` and `length`."""
  decoded, scores = prefix_beam_search(logits, lengths, beam_size, max_length, blank_id)
  return {
    'log_probabilities': jax.nn.log_softmax(logits),
    'frames': lengths,
    'labels': decoded.labels[:, 0],
    'length': decoded.lengths[:, 0],
    'score': scores[:, 0],
  }


@reading(lambda outputs, rows: ((outputs['labels'], outputs['length']), (rows['targets'], rows['target_lengths'])))
def error_rates(found: tuple[np.ndarray, ...], said: tuple[np.ndarray, ...]) -> Iterator[tuple[str, float]]:
  """Label error rate of the best strings of the beam, and the fraction of strings with any error."""
  errors = np.asarray(edit_distance(*jax.device_put((*said, *found))))
  if labels := said[1].sum():
    yield 'beam_label_error_rate', float(errors.sum() / labels)
  yield 'beam_string_error_rate', float(np.mean(errors > 0))


def text(class_names: Sequence[str], labels: np.ndarray, length: int) -> str:
  """Names of the labels, separated by spaces."""
  return ' '.join(class_names[label] for label in labels[:length])


def heard(class_names: Sequence[str], sample_rate: int, max_count: int = 3) -> Report:
  """Report that draws the first recordings, and below each one which class was heard when."""

  def report(outputs: Outputs, rows: Rows) -> Iterator[tuple[str, 'Figure']]:
    shown = len(rows['inputs'])
    figure, axes = make_figure(shown, 2, TIMELINE)
    for number in range(shown):
      own, output = ({name: array[number] for name, array in tree.items()} for tree in (rows, outputs))
      pair = axes[number], axes[shown + number]
      timeline(
        *pair,
        own['inputs'][: own['lengths']],
        output['log_probabilities'][: output['frames']],
        class_names,
        sample_rate,
      )
      said, guess = (
        text(class_names, own['targets'], own['target_lengths']),
        text(class_names, output['labels'], output['length']),
      )
      pair[0].set_title(f'said {said}, heard {guess}', fontsize=SMALL, color=INK)
    _legend(figure, axes[shown])
    yield 'heard', figure

  return Streamed('heard', lambda size: Highest(report, lambda _, rows: -rows['index'], max_count))


def spectra(sample_rate: int) -> Callable[[np.ndarray], Array]:
  """Function of waveforms that returns images of their log-mel spectra, with a range of 60 decibels."""

  def picture(waveforms: np.ndarray) -> Array:
    found = log_mel(jnp.asarray(waveforms), sample_rate)
    found = jnp.maximum(found, found.max((1, 2), keepdims=True) - 60)
    return found.swapaxes(1, 2)[:, ::-1]

  return picture


def picture(waveform: np.ndarray, output: Outputs, class_names: Sequence[str], sample_rate: int) -> 'Figure':
  """Draws the transcript of one recording."""
  figure, (upper, lower) = make_figure(1, 2, TIMELINE)
  timeline(upper, lower, waveform, output['log_probabilities'][: output['frames']], class_names, sample_rate)
  _legend(figure, lower)
  return figure


def _legend(figure: 'Figure', axis) -> None:
  """One entry for each kind of line."""
  handles = dict(zip(*axis.get_legend_handles_labels()[::-1], strict=True))
  figure.legend(handles.values(), handles, loc='outside lower center', ncols=2, frameon=False, fontsize=SMALL)


def timeline(
  upper, lower, waveform: np.ndarray, log_probabilities: np.ndarray, class_names: Sequence[str], sample_rate: int
) -> None:
  """Log-mel spectrum of a waveform on the upper axis, probabilities [frames, classes] of the labels on the lower one.

  Peaks above one half are labeled; classes without a name (the blank) are left out.
  """
  seconds = len(waveform) / sample_rate
  spectrum = log_mel(jnp.asarray(waveform)[None], sample_rate)[0]
  upper.imshow(np.asarray(spectrum).T, origin='lower', aspect='auto', cmap='magma')
  upper.set(ylabel='mel bands', xticks=[], yticks=[])
  probabilities = np.exp(log_probabilities[:, : len(class_names)])
  times = (np.arange(len(probabilities)) + 0.5) * seconds / max(len(probabilities), 1)
  for name, chance in zip(class_names, probabilities.T, strict=True):
    color, label = (ACCENT, 'labels heard') if chance.max() > 0.5 else (FAINT, 'other labels')
    lower.plot(times, chance, color=color, linewidth=THIN, label=label)
    for begin, end in _stretches(chance > 0.5):
      lower.text(times[begin:end].mean(), 1.03, name, ha='center', fontsize=SMALL, color=INK)
  lower.set(xlim=(0, seconds), ylim=(0, 1.2), xlabel='time (s)', ylabel='probability')
  plain(lower)


def _stretches(inside: np.ndarray) -> list[tuple[int, int]]:
  """Starts and ends of the ranges that are true."""
  edges = np.flatnonzero(np.diff(np.pad(inside.astype(int), 1)))
  return list(zip(edges[::2], edges[1::2], strict=True))
