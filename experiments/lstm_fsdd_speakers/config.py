"""The network of lstm_fsdd on unseen speakers: each of the six is left out once. See README.md."""

import dataclasses

from experiments.lstm_fsdd import config as digits
from research.data import speech
from research.data.examples import Dataset
from research.errors import ConfigError
from research.report.agreement import Target
from research.train.scales import at_scale, scales

TARGETS = (Target('test/accuracy', at_least=0.7, margin=0.05),)


@dataclasses.dataclass
class Config(digits.Config):
  """Tests on the recordings of one speaker, trains on those of the others."""

  fold: int = 0  # index of the speaker left out: george, jackson, lucas, nicolas, theo, yweweler
  num_folds: int = len(speech.SPEAKERS)  # one per speaker

  def validate(self) -> None:
    super().validate()
    self.speaker()

  def data(self) -> Dataset:
    return speech.fsdd(self.speaker(), max_length=speech.RATE)

  def speaker(self) -> str:
    """The speaker left out. Raises ConfigError for an unknown fold."""
    if self.num_folds != len(speech.SPEAKERS) or not 0 <= self.fold < self.num_folds:
      last = len(speech.SPEAKERS) - 1
      raise ConfigError(
        f'config.fold={self.fold} of {self.num_folds}: must be 0 to {last} of {last + 1}, one for each speaker'
      )
    return speech.SPEAKERS[self.fold]


def get_config(scale: str = '') -> Config:
  """The recorded experiment; 'fast' is a first look at it, 'tiny' the same with small numbers, for tests."""
  config = digits.get_config()
  fields = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}
  recorded = Config(**{**fields, 'steps': 400})
  return at_scale(scale, scales(recorded, **digits.TINY))
