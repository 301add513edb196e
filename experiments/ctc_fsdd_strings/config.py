"""Strings of spoken digits, learned without being told where each one is. Reaches a label error rate of 3 %."""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np
from jax import Array

from experiments.series import padded
from experiments.wiring import supervised_experiment
from research.data import audio, augment, speech
from research.evaluate import transcripts
from research.models.rnn import RNN, SequenceLabeler
from research.objectives.ctc import ctc
from research.report.agreement import Target
from research.tasks.base import State
from research.tasks.supervised import predictor
from research.train.config import Config as Base
from research.train.config import check_below, check_least, check_within
from research.train.experiment import Experiment, Request, Sampler
from research.train.optimizer import Optimizer
from research.train.scales import at_scale, scales
from research.types import Batch, PyTree

TARGETS = (Target('test/label_error_rate', most=0.03, margin=0.015),)
BLANK = len(speech.DIGITS)
FEATURES = audio.features(speech.RATE)
MOST_STACKED = 50  # of the 374 frames of the longest string, which must leave one for each of 7 digits


@dataclasses.dataclass
class Config(Base):
  """Two bidirectional layers over the log-mel spectrum, three frames at a time."""

  strings: int = 50_000  # that are trained on, each made when it is asked for
  held_out: int = 1_000  # strings of the test part; half as many validate
  units: int = 128  # of a layer, in each direction
  layers: int = 2  # of the network
  dropout: float = 0.2  # part of the units between layers and after the last
  stack: int = 3  # frames of 16 ms that are taken as one
  band_mask: int = 8  # widest stretch of bands that is hidden, of 40
  frame_mask: int = 20  # longest stretch of frames that is hidden
  beam: int = 8  # strings that the search keeps

  def validate(self) -> None:
    super().validate()
    check_least(self, 1, 'strings', 'units', 'layers', 'beam')
    check_least(self, 2, 'held_out')
    check_least(self, 0, 'band_mask', 'frame_mask')
    check_below(self, 1, 'dropout')
    check_within(self, 'stack', 1, MOST_STACKED)

  def build(self) -> Experiment:
    data = speech.digit_strings(self.strings, self.seed, self.held_out)
    model = self.model()
    return supervised_experiment(
      self,
      data,
      model,
      ctc(BLANK),
      score=lambda metrics: -metrics['validation/label_error_rate'],
      preprocess=self.preprocess,
      augment=augment.chain(
        lambda batch, key: FEATURES(batch), audio.spec_augment(2, self.band_mask, 2, self.frame_mask)
      ),
      metrics=(transcripts.error_rates,),
      figures=(transcripts.heard(data.classes, speech.RATE),),
      predict=self.predict,
    )

  def model(self) -> SequenceLabeler:
    """The network alone."""
    return SequenceLabeler(RNN(self.units, self.layers, 'lstm', True, self.dropout), BLANK + 1, self.dropout)

  def preprocess(self, batch: Batch) -> dict[str, Array]:
    """Spectra with their lengths, some frames in one."""
    return padded(audio.stacked(FEATURES(batch), self.stack))

  def predict(self, state: State, batch: Batch) -> dict[str, Array]:
    """What was heard in each recording."""
    logits = predictor(self.model(), self.preprocess, self.precision)(state, batch)
    longest = 2 * batch['targets'].shape[1]
    return transcripts.transcribed(logits, self.preprocess(batch)['lengths'], self.beam, longest, BLANK)

  def sampler(self, files: Mapping[str, str]) -> Sampler:
    """Writes down the digits spoken in the WAV file `input`, and draws when each was heard."""
    model = self.model()

    @jax.jit
    def listen(variables: PyTree, batch: Batch) -> dict[str, Array]:
      batch = self.preprocess(batch)
      logits = model.apply(variables, batch['inputs'])
      return transcripts.transcribed(logits, batch['lengths'], self.beam, logits.shape[1], BLANK)

    def sample(variables: PyTree, key: Array, request: Request) -> Iterator[tuple[str, Any]]:
      request.refuse('prompt', 'length', 'temperature', instead='input')
      batch = audio.load(request.input, speech.RATE, shortest=speech.RATE // 10)
      output = {name: np.asarray(array)[0] for name, array in listen(variables, batch).items()}
      yield 'digits', transcripts.text(speech.DIGITS, output['labels'], output['length'])
      yield 'heard', transcripts.picture(np.asarray(batch['inputs'])[0], output, speech.DIGITS, speech.RATE)

    return sample


def get_config(scale: str = '') -> Config:
  """The recorded experiment; 'fast' is a first look at it, 'tiny' the same with small numbers, for tests."""
  recorded = Config(
    steps=500,
    batch_size=32,
    optimizer=Optimizer('adamw', lr=3e-3, schedule='cosine', warmup=100, weight_decay=1e-2, clip_norm=1.0),
    ema=0.99,
    evaluate_every=250,
    evaluate_batch_size=250,
    checkpoint_every=250,
  )
  return at_scale(scale, scales(recorded, steps=10, batch_size=4, strings=40, held_out=20, units=8, layers=1))
