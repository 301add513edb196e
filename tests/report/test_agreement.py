"""Levels of agreement, against scipy's distributions and by hand."""

import copy
import math

import numpy as np
import pytest
from scipy import stats

from research.report.agreement import (
  Target,
  agreement,
  band,
  judge,
  judge_beginnings,
  sampling_error,
  seed_means,
  verdict,
)

WIDE = Target('test/accuracy', at_least=0.9, margin=1.0)


def record(seed=0, accuracy=0.95, fold=None):
  return {
    'seed': seed,
    **({} if fold is None else {'fold': fold}),
    'metrics': {'test/accuracy': accuracy, 'test/loss': 0.2},
    'early': {'100': {'train/loss': 0.7}},
    'state_sha256': {'0': f'a{seed}', '1': 'b', '10': 'c', '100': 'd', 'end': 'e'},
    'commit': 'abc',
    'config_sha256': 'f' * 64,
    'device': '1 x cpu, 2 cores',
    'versions': {'jax': '0.10.2', 'flax': '0.12'},
    'data': {'train': '123'},
  }


def test_band_is_the_prediction_interval_of_a_normal_sample():
  values = np.array([0.91, 0.93, 0.94, 0.90, 0.95])
  scale = values.std(ddof=1) * math.sqrt(1 + 1 / 5)
  expected = stats.t.interval(0.99, df=4, loc=values.mean(), scale=scale)
  np.testing.assert_allclose(band(values.tolist(), WIDE), expected, rtol=1e-12)


def test_band_holds_ninety_nine_of_a_hundred_new_runs():
  generator = np.random.default_rng(0)
  samples = generator.normal(0.5, 0.01, (4_000, 4))
  inside = [low <= sample[3] <= high for sample in samples for low, high in [band(sample[:3].tolist(), WIDE)]]
  assert abs(np.mean(inside) - 0.99) < 3 * math.sqrt(0.01 * 0.99 / 4_000)


def test_band_is_no_narrower_than_the_test_parts_sampling_error():
  low, high = band([0.9, 0.9, 0.9], WIDE._replace(examples=400))
  assert high - low == pytest.approx(2 * 2.58 * math.sqrt(0.9 * 0.1 / 400))
  assert sampling_error(0.9, 400) == pytest.approx(stats.norm.ppf(0.995) * stats.binom.std(400, 0.9) / 400, rel=2e-3)


def test_a_metric_that_is_no_share_has_no_sampling_error():
  assert sampling_error(1.5, 10) == sampling_error(-0.1, 10) == sampling_error(0.9, 0) == 0
  assert band([3.0, 3.2], WIDE._replace(examples=4))[0] < 3.1 < band([3.0, 3.2], WIDE._replace(examples=4))[1]


def test_a_target_is_reached_at_its_ends():
  target = Target('test/loss', at_least=0.1, at_most=0.2)
  assert [target.reached(mean) for mean in (0.1, 0.2, 0.0999, 0.2001, math.nan)] == [True, True, False, False, False]
  assert target.goal == 0.2 and WIDE.goal == 0.9


def test_band_is_no_wider_than_the_margin():
  assert band([0.8, 0.9, 0.95], WIDE._replace(margin=0.01)) == pytest.approx((0.8733333, 0.8933333))
  assert band([0.9], WIDE._replace(margin=0.01, examples=9)) == pytest.approx((0.89, 0.91))


def test_a_part_of_the_data_that_only_one_tells_of_is_no_difference():
  run = record() | {'data': {**record()['data'], 'test': 'abc'}}
  assert agreement(run, [record()]).differs == ()


def test_equal_states_are_bitwise_whatever_else_differs():
  run = record() | {'commit': 'new'}
  assert agreement(run, [record(1), record(0)]) == ('bitwise', '', ('commit: abc -> new',))
  assert agreement(run, [record(1)]) == ('', '', ('commit: abc -> new',))  # its own seed has no record


@pytest.mark.parametrize('step', ['0', '1', '10', '100', 'end'])
def test_a_tampered_hash_is_found_at_its_step(step):
  tampered = copy.deepcopy(record())
  tampered['state_sha256'][step] = 'x'
  assert agreement(record(), [tampered])[:2] == ('numerical', step)


def test_the_first_of_several_differences_is_told():
  tampered = record() | {'state_sha256': {'0': 'a0', '1': 'b', '10': 'x', '100': 'x', 'end': 'x'}}
  assert agreement(record(), [tampered]).first_difference == '10'


def test_numerical_is_up_to_rounding_in_every_metric():
  def level(**metrics):
    return agreement(record() | {'state_sha256': {'end': 'x'}, 'metrics': metrics}, [record()]).level

  close = {'test/accuracy': 0.95, 'test/loss': 0.2 * (1 + 9e-6)}
  assert level(**close) == 'numerical'
  assert level(**close | {'test/loss': 0.2 * (1 + 2e-5)}) == ''
  assert level(**close | {'test/more': 1.0}) == ''
  assert level(**{'test/accuracy': 0.95}) == ''
  assert level(**close | {'test/loss': math.nan}) == ''


def test_an_unfinished_run_is_compared_by_its_beginning():
  run = {name: value for name, value in record().items() if name != 'metrics'}
  run['state_sha256'] = {'0': 'a0', '1': 'b'}
  assert agreement(run, [record()]).level == 'bitwise'
  run['state_sha256'] = {'0': 'a0', '1': 'x'}
  assert agreement(run, [record()])[:2] == ('numerical', '1')
  run['early'] = {'100': {'train/loss': 0.71}}
  assert agreement(run, [record()])[:2] == ('', '1')


def test_what_differs_is_listed_by_name():
  run = record() | {
    'config_sha256': 'e' * 64,
    'device': '4 x gpu',
    'versions': {'jax': '0.11.0', 'flax': '0.12', 'new': '1'},
    'data': {'train': '124'},
  }
  assert agreement(run, [record()]).differs == (
    'data: 123 -> 124',
    f'config: {"f" * 12} -> {"e" * 12}',
    'hardware: 1 x cpu, 2 cores -> 4 x gpu',
    'jax: 0.10.2 -> 0.11.0',
    'new: unknown -> 1',
  )


def test_a_seed_without_record_agrees_statistically_or_not():
  recorded = [record(seed, value) for seed, value in enumerate((0.94, 0.95, 0.96))]
  low, high = band([0.94, 0.95, 0.96], WIDE)
  for inside in (low, low + 1e-9, high):
    assert judge([record(7, inside)], recorded, [WIDE])[0].level == 'statistical'
  assert judge([record(7, low - 1e-9)], recorded, [WIDE])[0].level == ''
  assert judge([record(7, high + 1e-9)], recorded, [WIDE])[0].level == ''


def test_cross_validation_is_judged_by_the_mean_over_the_folds():
  recorded = [record(seed, 0.9 + seed / 1000 + fold / 10, fold) for seed in (0, 1) for fold in (0, 1)]
  assert seed_means(recorded, 'test/accuracy') == pytest.approx({0: 0.95, 1: 0.951})
  runs = [record(5, accuracy, fold) for fold, accuracy in enumerate((0.99, 0.91))]
  assert [one.level for one in judge(runs, recorded, [WIDE])] == ['statistical', 'statistical']


def test_verdict_takes_the_mean_over_the_recorded_seeds_with_the_new_runs_in_place_of_theirs():
  recorded = [record(0, 0.89), record(1, 0.92)]
  bitwise = judge(recorded[:1], recorded, [WIDE])
  assert verdict(recorded[:1], bitwise, recorded, [WIDE]) == ''
  lower = [record(0, 0.85)]
  assert verdict(lower, bitwise, recorded, [WIDE]) == 'test/accuracy is 0.8850 on average, below 0.9'


def test_where_less_is_better_a_mean_may_not_lie_above():
  target = Target('test/accuracy', at_most=0.9, margin=1.0)
  bitwise = [agreement(record(0, 0.95), [record(0, 0.95)])]
  assert (
    verdict([record(0, 0.95)], bitwise, [record(0, 0.95)], [target]) == 'test/accuracy is 0.9500 on average, above 0.9'
  )
  assert verdict([record(0, 0.9)], bitwise, [record(0, 0.9)], [target]) == '' and target.goal == 0.9


def test_every_target_counts():
  recorded = [record(seed, value) for seed, value in enumerate((0.94, 0.95, 0.96))]
  loss, missing = Target('test/loss', at_most=0.1, margin=0.01), Target('test/bleu', at_least=8.0)
  far = record(7) | {'metrics': {'test/accuracy': 0.95, 'test/loss': 0.3}}
  assert [judge([far], recorded, targets)[0].level for targets in ([WIDE], [WIDE, loss], [loss])] == [
    'statistical',
    '',
    '',
  ]
  bitwise = judge(recorded, recorded, [WIDE, loss])
  assert verdict(recorded, bitwise, recorded, [WIDE, loss]) == 'test/loss is 0.2000 on average, above 0.1'
  low = WIDE._replace(at_least=0.96)
  both = 'test/accuracy is 0.9500 on average, below 0.96, test/loss is 0.2000 on average, above 0.1'
  assert verdict(recorded, bitwise, recorded, [low, loss]) == both
  assert verdict(recorded, bitwise, recorded, [missing]) == 'test/bleu is not among the metrics'
  assert judge([record(7)], recorded, [missing])[0].level == ''


def test_a_variant_is_compared_with_its_own_record_but_need_not_reach_the_goal():
  target = WIDE._replace(margin=0.01)
  recorded, default = [record(0, 0.5) | {'variant': 'small'}], [record(0, 0.95)]
  run = record(0, 0.505) | {'variant': 'small', 'state_sha256': {'end': 'x'}}
  assert judge([run], recorded, [target])[0].level == 'statistical', 'a single record has the margin to go by'
  assert agreement(run, [*default, *recorded]).first_difference == 'end'
  assert agreement(run, default).level == '', 'the default is another run'
  assert verdict([run], judge([run], recorded, [target]), recorded, [target.without_goal()]) == ''


def test_verdict_names_the_seeds_that_agree_with_nothing():
  recorded = [record(0), record(1)]
  runs = [record(3, 0.2), record(2, 0.2)]
  assert (
    verdict(runs, judge(runs, recorded, [WIDE]), recorded, [WIDE]) == 'seed 2, 3 agrees with the record at no level'
  )


def test_a_beginning_on_other_hardware_agrees_statistically_where_another_seed_would():
  recorded = [record(seed) | {'early': {'100': {'train/loss': loss}}} for seed, loss in enumerate((0.70, 0.72, 0.71))]
  low, high = band([0.70, 0.72, 0.71], WIDE)

  def level(loss, records=recorded, **changes):
    beginning = record() | {'early': {'100': {'train/loss': loss}}, 'state_sha256': {'0': 'other'}} | changes
    del beginning['metrics']
    return judge_beginnings([beginning], records)[0].level

  elsewhere = {'device': '1 x other, 2 cores'}
  assert level(high - 1e-6, **elsewhere) == level(low + 1e-6, versions={'jax': '0.11'}) == 'statistical'
  assert level(high + 1e-6, **elsewhere) == level(low - 1e-6, **elsewhere) == level(math.nan, **elsewhere) == ''
  assert level(high - 1e-6) == '', 'on the same hardware the same code differs by rounding alone'
  assert level(0.705, recorded[:1], **elsewhere) == level(0.705, early={}, **elsewhere) == ''
  assert level(0.705, recorded[:2], **elsewhere) == 'statistical'
  there_too = [recorded[0] | elsewhere, *recorded[1:]]
  assert level(high - 1e-6, there_too, **elsewhere) == '', 'the hardware of its own record is what counts'
  assert level(0.70, **elsewhere) == 'numerical'
