"""Ranges of arguments, ends included and not, and the nearest of known names."""

import math

import numpy as np
import pytest

from research.errors import ConfigError, check_count, check_counts, check_range, naming, shortened, unknown

NAN = math.nan


@pytest.mark.parametrize(
  'limits, inside, outside, words',
  [
    ({}, (0, 0.5, 1e30), (-1e-9, math.inf, NAN), 'at least 0 and finite'),
    ({'below': 1}, (0, 0.999), (-1, 1, NAN), 'at least 0 and less than 1'),
    ({'at_most': 1}, (0, 1), (-0.1, 1.0001, NAN), 'at least 0 and at most 1'),
    ({'above': 0}, (1e-9, 5), (0, -1, math.inf, NAN), 'more than 0 and finite'),
    ({'at_least': -2, 'below': 3}, (-2, 2.9), (-2.1, 3), 'at least -2 and less than 3'),
  ],
)
def test_a_number_out_of_its_range_is_refused_by_name(limits, inside, outside, words):
  for value in inside:
    check_range('share', value, **limits)
  for value in outside:
    with pytest.raises(ConfigError, match=f'^share={value}: must be {words}$'):
      check_range('share', value, **limits)


@pytest.mark.parametrize(
  'limits, inside, outside, words',
  [
    ({}, (1, np.int64(7)), (0, -1, 1.0, NAN, True), 'of at least 1'),
    ({'at_least': 0, 'at_most': 3}, (0, 3), (-1, 4, 1.5), 'from 0 to 3'),
  ],
)
def test_a_count_is_a_whole_number_in_its_range(limits, inside, outside, words):
  for value in inside:
    check_count('bands', value, **limits)
  for value in outside:
    with pytest.raises(ConfigError, match=f'^bands={value}: must be a whole number {words}$'):
      check_count('bands', value, **limits)


def test_several_counts_or_tuples_of_them():
  check_counts(blocks=(3, 1), width=4)
  for counts, message in (
    ({'width': 4, 'blocks': (3, 0)}, r'blocks=\(3, 0\): each must be a whole number of at least 1'),
    ({'blocks': ()}, r'blocks=\(\): must have at least one entry'),
    ({'width': 0}, 'width=0'),
  ):
    with pytest.raises(ConfigError, match=f'^{message}'):
      check_counts(**counts)


@pytest.mark.parametrize(
  ('name', 'known', 'told'),
  [
    ('AdamW', ('adam', 'adamw', 'sgd'), 'is unknown; nearest: adamw, adam'),
    ('forda', ('FordA', 'FORDA', 'Wafer'), 'is unknown; nearest: FordA, FORDA'),
    ('forda', ('FordA', 'FORDA', 'fordA', 'Forda'), 'is unknown; nearest: FordA, FORDA, fordA'),
    ('lr', ('LR', 'l1'), 'is unknown; nearest: LR'),
    ('zzz', ('', 'adam', 'sgd', 'adam'), 'is unknown; nearest: adam, sgd'),
    (3, ('1', '30'), 'is unknown; nearest: 30'),
  ],
)
def test_the_nearest_names_in_any_case_or_else_all(name, known, told):
  assert unknown(name, known) == told


def test_a_long_message_loses_its_last_words():
  words = [f'{number:09}' for number in range(31)]
  assert shortened('\n'.join(words[:30])) == ' '.join(words[:30])  # 299 characters
  assert shortened(f'1 {" ".join(words[:30])}') == f'1 {" ".join(words[:29])} [...]'  # would be 301
  assert shortened('a\n  b') == 'a b'


def test_an_error_of_the_system_names_its_file():
  for error, name in ((OSError(28, 'full'), 'a.txt'), (OSError(28, 'full', 'b.txt'), 'b.txt')):
    with pytest.raises(OSError, match='full') as caught, naming('a.txt'):
      raise error
    assert caught.value.filename == name
