"""GARCH against its recursion in numpy, and a test of two forecasts against scipy."""

import numpy as np
import pytest
from arch import arch_model
from scipy.stats import ttest_1samp

from research.evaluate import volatility

RANDOM = np.random.default_rng(0)
FIRST = 600


def simulated(days: int = 700) -> np.ndarray:
  returns, variance = np.empty(days), 1.0
  for day, noise in enumerate(RANDOM.normal(size=days)):
    returns[day] = np.sqrt(variance) * noise
    variance = 0.05 + 0.1 * returns[day] ** 2 + 0.85 * variance
  return returns


RETURNS = simulated()


@pytest.mark.parametrize('leverage', [False, True])
def test_garch_is_the_recursion_with_the_parameters_of_the_past(leverage):
  forecasts = volatility.garch(RETURNS, FIRST, leverage)
  model = arch_model(RETURNS[:FIRST], mean='Constant', vol='GARCH', p=1, o=int(leverage), q=1, rescale=False)
  fit = model.fit(disp='off')
  mean, omega, alpha, *gamma, beta = fit.params
  variance, expected = fit.conditional_volatility[-1] ** 2, []
  for error in RETURNS[FIRST - 1 : -1] - mean:
    slope = alpha + sum(gamma) * (error < 0)
    variance = omega + slope * error**2 + beta * variance
    expected.append(variance)
  assert forecasts.shape == (100,)
  np.testing.assert_allclose(forecasts, expected, rtol=1e-6)


def test_garch_knows_nothing_of_the_future():
  changed = RETURNS.copy()
  changed[FIRST + 40 :] *= -9
  before, after = volatility.garch(RETURNS, FIRST), volatility.garch(changed, FIRST)
  assert before[:41].tobytes() == after[:41].tobytes()  # day 40 is forecast before it comes
  assert (before[41:] != after[41:]).all()


def test_diebold_mariano_is_a_t_statistic():
  difference = RANDOM.normal(-0.2, 1, 300)
  np.testing.assert_allclose(volatility.diebold_mariano(difference), ttest_1samp(difference, 0).statistic)


def test_report_holds_losses_of_the_same_days():
  squares, dates = np.square(RETURNS[FIRST:]), np.arange(700).astype('datetime64[D]')
  garch, gjr = volatility.garch(RETURNS, FIRST), volatility.garch(RETURNS, FIRST, leverage=True)
  log_variance = np.log(garch) + 0.05
  rows = {'targets': squares[:, None, None]}
  values = dict(volatility.against(dates, RETURNS)(log_variance, rows))
  for name, variance in (('garch_qlike', garch), ('gjr_garch_qlike', gjr)):
    np.testing.assert_allclose(values[name], (np.log(variance) + squares / variance).mean())
  one_day = dict(volatility.against(dates, RETURNS)(log_variance[-1:], {'targets': squares[-1:, None, None]}))
  assert 'garch_qlike' in one_day and 'diebold_mariano' not in one_day
  own = log_variance + squares / np.exp(log_variance)
  statistic = ttest_1samp(own - np.log(garch) - squares / garch, 0).statistic
  np.testing.assert_allclose(values['diebold_mariano'], statistic)
  assert values['volatility'].axes[0].get_ylim()[0] == 0
  sizes, yardstick, network = values['volatility'].axes[0].lines
  assert network.get_xdata()[0] == dates[FIRST]
  np.testing.assert_allclose(network.get_ydata(), np.exp(log_variance / 2))
  np.testing.assert_allclose(yardstick.get_ydata(), np.sqrt(garch))
  np.testing.assert_allclose(sizes.get_ydata(), np.abs(RETURNS[FIRST:]))
