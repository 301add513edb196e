"""CTC on variable-length sequences, with per-example masks; for tests."""

import dataclasses

import numpy as np

from experiments.series import padded
from experiments.wiring import supervised_experiment
from research.data import audio
from research.data.examples import Arrays, Dataset
from research.evaluate import transcripts
from research.models.rnn import RNN, SequenceLabeler
from research.objectives.ctc import ctc
from research.parallel.mesh import MeshShape
from research.tasks.network import Network, plain_outputs
from research.train.config import Config as Base
from research.train.experiment import Experiment
from research.train.optimizer import Optimizer
from research.types import Batch, Fitted, Model, PyTree

LABELS, FRAMES, FEATURES = 3, 14, 6


def sequences(count: int, seed: int) -> Arrays:
  """Two or three labels of four noisy frames each; the padding has extreme values."""
  rng = np.random.default_rng(seed)
  labels, lengths = rng.integers(1, LABELS + 1, (count, 3)), rng.integers(2, 4, count)
  heard = np.repeat(labels, 4, axis=1)
  inputs = np.full((count, FRAMES, FEATURES), 1e3)
  inputs[:, : heard.shape[1]] = np.eye(FEATURES)[heard] + 0.3 * rng.normal(size=(*heard.shape, FEATURES))
  arrays = {'inputs': inputs.astype(np.float32), 'lengths': 4 * lengths, 'targets': labels, 'target_lengths': lengths}
  return Arrays({name: array if name == 'inputs' else array.astype(np.int32) for name, array in arrays.items()})


@dataclasses.dataclass
class Config(Base):
  """One bidirectional layer."""

  hidden_size: int = 8  # of a direction
  dropout_rate: float = 0.1  # part of the outputs

  def network(self, fitted: Fitted) -> Network:
    model = SequenceLabeler(RNN(self.hidden_size, cell='gru', bidirectional=True), LABELS + 1, self.dropout_rate)
    return Network(model, padded, self.transcribe)

  def transcribe(self, model: Model, variables: PyTree, batch: Batch) -> PyTree:
    logits = plain_outputs(model, variables, batch)
    return transcripts.transcribed(logits, batch['lengths'], beam_size=2, max_length=6, blank_id=0)

  def build(self) -> Experiment:
    return supervised_experiment(
      self,
      Dataset(sequences(200, 0), sequences(50, 1), sequences(50, 2)),  # a report compiles for each size of a part
      {},
      ctc(),
      score=lambda metrics: -metrics['validation/label_error_rate'],
      augment=audio.spec_augment(1, 2, 1, 2),
      metrics=(transcripts.error_rates,),
    )


def get_config(scale: str = '') -> Config:
  return Config(
    steps=40,
    batch_size=32,
    optimizer=Optimizer('adam', lr=1e-2),
    log_every=7,
    eval_every=10,
    eval_batch_size=16,
    checkpoint_every=5,
    mesh=MeshShape(1),
  )
