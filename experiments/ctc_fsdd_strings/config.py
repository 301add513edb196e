"""Transcribing strings of spoken digits with CTC, without alignments. Reaches a label error rate of 3 %."""

import dataclasses
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from jax import Array

from experiments.series import padded
from experiments.wiring import check_network, supervised_experiment
from research.data import audio, augment, speech
from research.data.augment import Augmentation
from research.evaluate import transcripts
from research.models.rnn import RNN, SequenceLabeler
from research.objectives.ctc import ctc
from research.report.agreement import Target
from research.tasks.network import Network, plain_outputs
from research.train.config import Config as Base
from research.train.config import as_field, check_at_least, check_within
from research.train.experiment import Experiment, Request, Sampler
from research.train.optimizer import Optimizer
from research.train.scales import at_scale, scales
from research.types import Batch, Fitted, Model, PyTree

TARGETS = (Target('test/label_error_rate', at_most=0.03, margin=0.015),)
BLANK = len(speech.DIGITS)
FEATURES = audio.features(speech.RATE)
MOST_STACKED = 50  # of the 374 frames of the longest string, leaving at least one for each of 7 digits


@dataclasses.dataclass
class Config(Base):
  """Two bidirectional layers over the log-mel spectrum, three frames at a time."""

  train_size: int = 50_000  # training strings, generated on the fly
  test_size: int = 1_000  # test strings; validation has half as many
  hidden_size: int = 128  # per layer and direction
  num_layers: int = 2  # of the network
  dropout_rate: float = 0.2  # between layers and after the last
  frame_stack: int = 3  # 16 ms frames concatenated into one step
  freq_mask: int = 8  # widest mask, in mel bands (of 40)
  time_mask: int = 20  # longest mask, in frames
  beam_size: int = 8  # of the prefix beam search

  def validate(self) -> None:
    super().validate()
    check_at_least(self, 1, 'train_size', 'beam_size')
    check_at_least(self, 2, 'test_size')
    check_within(self, 'frame_stack', 1, MOST_STACKED)
    check_network(self, {'class_names': range(10)})
    with as_field():
      self.augmentation()

  def build(self, fitted: Fitted | None = None) -> Experiment:
    data = speech.digit_strings(self.train_size, self.seed, self.test_size)
    return supervised_experiment(
      self,
      data,
      fitted or {'class_names': data.class_names},
      ctc(BLANK),
      score=lambda metrics: -metrics['validation/label_error_rate'],
      augment=self.augmentation(),
      metrics=(transcripts.error_rates,),
      figures=(transcripts.heard(data.class_names, speech.RATE),),
    )

  def augmentation(self) -> Augmentation:
    masks = audio.spec_augment(2, self.freq_mask, 2, self.time_mask)
    return augment.chain(lambda batch, key: FEATURES(batch), masks)

  def network(self, fitted: Fitted) -> Network:
    model = SequenceLabeler(
      RNN(self.hidden_size, self.num_layers, 'lstm', True, self.dropout_rate), BLANK + 1, self.dropout_rate
    )
    return Network(model, self.preprocess, self.transcribe)

  def preprocess(self, batch: Batch) -> dict[str, Array]:
    """Spectra and their lengths, with frames stacked."""
    return padded(audio.stacked(FEATURES(batch), self.frame_stack))

  def transcribe(self, model: Model, variables: PyTree, batch: Batch) -> dict[str, Array]:
    """The transcript of each recording."""
    logits = plain_outputs(model, variables, batch)
    return transcripts.transcribed(logits, batch['lengths'], self.beam_size, logits.shape[1], BLANK)

  def sampler(self, fitted: Fitted) -> Sampler:
    """Transcribes the digits spoken in the WAV file `input`, and plots when each was heard."""
    listen, class_names = jax.jit(self.network(fitted)), fitted['class_names']

    def sample(variables: PyTree, key: Array, request: Request) -> Iterator[tuple[str, Any]]:
      request.refuse('prompt', 'length', 'temperature', instead='input')
      batch = audio.load(request.input, speech.RATE, min_length=speech.RATE // 10)
      output = {name: np.asarray(array)[0] for name, array in listen(variables, batch).items()}
      yield 'digits', transcripts.text(class_names, output['labels'], output['length'])
      yield 'heard', transcripts.picture(np.asarray(batch['inputs'])[0], output, class_names, speech.RATE)

    return sample


def get_config(scale: str = '') -> Config:
  """The recorded experiment; 'fast' is a first look at it, 'tiny' the same with small numbers, for tests."""
  recorded = Config(
    steps=500,
    batch_size=32,
    optimizer=Optimizer('adamw', lr=3e-3, schedule='cosine', warmup_steps=100, weight_decay=1e-2, clip_norm=1.0),
    ema_decay=0.99,
    eval_every=250,
    eval_batch_size=250,
    checkpoint_every=250,
  )
  return at_scale(
    scale, scales(recorded, steps=10, batch_size=4, train_size=40, test_size=20, hidden_size=8, num_layers=1)
  )
