"""What a config refuses in one line before anything is compiled."""

import dataclasses

import pytest

from research.errors import ConfigError
from research.train.config import REMAT, Config


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    ({'precision': 'bfloat'}, r"config.precision='bfloat': is unknown; nearest: bfloat16"),
    ({'precision': ''}, r"config.precision='': is unknown; nearest: float32, bfloat16, float16"),
    ({'remat': 'dots_savable'}, r"config.remat='dots_savable': is unknown; nearest: dots_saveable"),
    ({'accumulate': 0}, r'config.accumulate=0: must be at least 1'),
    ({'accumulate': 3}, r'config.accumulate=3: must divide config.batch_size=32$'),
  ],
)
def test_values_that_no_run_could_use(change, message):
  with pytest.raises(ConfigError, match=message):
    dataclasses.replace(Config(batch_size=32), **change).validate()


def test_all_that_is_offered_is_taken():
  for policy in ('', *REMAT):
    Config(batch_size=32, remat=policy, accumulate=8, precision='float16').validate()
