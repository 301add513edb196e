"""A bidirectional LSTM that recognizes spoken digits. Reaches 97.5 % on the official test split."""

import dataclasses
from collections.abc import Iterator

import jax
import numpy as np
from jax import Array

from experiments.series import padded
from experiments.wiring import check_network, supervised_experiment
from research.data import audio, augment, speech
from research.data.augment import Augmentation
from research.data.examples import Dataset
from research.evaluate import exact, figures, transcripts
from research.models.rnn import RNN, SequenceClassifier
from research.objectives.classification import softmax_cross_entropy
from research.report.agreement import Target
from research.tasks.network import Network
from research.train.config import Config as Base
from research.train.config import as_field, check_within
from research.train.experiment import Experiment, Request, Sampler
from research.train.optimizer import Optimizer
from research.train.scales import at_scale, scales
from research.types import Batch, Fitted, PyTree

TARGETS = (Target('test/accuracy', at_least=0.975, margin=0.02, examples=300),)
MOST_STACKED = 61  # frames of a second, after which recordings are cut
TINY = {'steps': 20, 'batch_size': 32, 'hidden_size': 8}


@dataclasses.dataclass
class Config(Base):
  """Two layers over log-mel spectra, three frames per step, averaged over time."""

  hidden_size: int = 128  # per layer and direction
  num_layers: int = 2  # of the network
  frame_stack: int = 3  # 16 ms frames concatenated into one step
  per_band: bool = False  # subtract the mean of each band instead of that of all bands
  pooling: str = 'mean'  # over time: last (of each direction) or mean
  dropout_rate: float = 0.2  # between layers and of the pooled features
  recurrent_dropout_rate: float = 0.0  # of the recurrent connections
  label_smoothing: float = 0.1  # fraction of the target distribution spread over all classes
  speed: float = 0.0  # largest random change of speed, as a fraction
  shift: int = 800  # largest random shift, in samples
  snr_db: tuple[float, float] = (20.0, 50.0)  # range of the signal-to-noise ratio of added noise
  freq_mask: int = 5  # widest mask, in mel bands (of 40)
  time_mask: int = 10  # longest mask, in frames (of about 26)

  def validate(self) -> None:
    super().validate()
    check_within(self, 'frame_stack', 1, MOST_STACKED)
    check_network(self, {'class_names': range(10)})
    with as_field(noise='snr_db'):
      self.augmentation()
      softmax_cross_entropy(self.label_smoothing)

  def build(self, fitted: Fitted | None = None) -> Experiment:
    data = self.data()
    return supervised_experiment(
      self,
      data,
      fitted or {'class_names': data.class_names},
      softmax_cross_entropy(self.label_smoothing),
      score=lambda metrics: metrics['validation/accuracy'],
      augment=self.augmentation(),
      metrics=(exact.multiclass, exact.accuracy_by('speakers', speech.SPEAKERS)),
      figures=(
        figures.confusion(data.class_names),
        figures.mistakes(data.class_names, picture=transcripts.spectra(speech.RATE)),
      ),
    )

  def data(self) -> Dataset:
    """The official split: takes 0-4 are the test split. Recordings are cut after a second."""
    return speech.fsdd(max_length=speech.RATE)

  def network(self, fitted: Fitted) -> Network:
    rnn = RNN(self.hidden_size, self.num_layers, 'lstm', True, self.dropout_rate, self.recurrent_dropout_rate)
    return Network(
      SequenceClassifier(rnn, len(fitted['class_names']), self.pooling, self.dropout_rate), self.preprocess
    )

  def augmentation(self) -> Augmentation:
    return augment.chain(
      audio.speed(self.speed),
      audio.shift(self.shift),
      audio.noise(*self.snr_db),
      lambda batch, key: self.spectra(batch),
      audio.spec_augment(2, self.freq_mask, 1, self.time_mask, max_fraction=0.2),
    )

  def spectra(self, batch: Batch) -> dict[str, Array]:
    """Log-mel spectra of the recordings."""
    return audio.features(speech.RATE, per_band=self.per_band)(batch)

  def preprocess(self, batch: Batch) -> dict[str, Array]:
    """Spectra and their lengths, with frames stacked."""
    return padded(audio.stacked(self.spectra(batch), self.frame_stack))

  def sampler(self, fitted: Fitted) -> Sampler:
    """Classifies the digit spoken in the WAV file `input`, with its probability."""
    network, class_names = jax.jit(self.network(fitted)), fitted['class_names']

    def sample(variables: PyTree, key: Array, request: Request) -> Iterator[tuple[str, str]]:
      request.refuse('prompt', 'length', 'temperature', instead='input')
      batch = audio.load(request.input, speech.RATE, min_length=speech.RATE // 10)
      sure = np.asarray(jax.nn.softmax(network(variables, batch)))[0]
      yield 'digit', f'{class_names[sure.argmax()]} ({sure.max():.1%})'

    return sample


def get_config(scale: str = '') -> Config:
  """The recorded experiment; 'fast' is a first look at it, 'tiny' the same with small numbers, for tests."""
  recorded = Config(
    steps=2_000,
    batch_size=64,
    optimizer=Optimizer('adamw', lr=3e-3, schedule='cosine', warmup_steps=100, weight_decay=1e-2),
    ema_decay=0.995,
    eval_every=500,
    eval_batch_size=300,
    checkpoint_every=1_000,
  )
  return at_scale(scale, scales(recorded, **TINY))
