"""No forecast of the walk-forward knows what came after the day before it."""

import dataclasses

import jax
import numpy as np
from arch.data import sp500 as package

from experiments.gru_sp500_volatility.config import get_config
from research.data import finance
from research.parallel.mesh import MeshShape
from research.train.loop import train

FOLD = 2
CONFIG = dataclasses.replace(get_config('tiny'), fold=FOLD, eval_every=0, mesh=MeshShape(1))


def forecasts():
  """(metrics, parameters, log variances of the tested days) of a run."""
  experiment = CONFIG.build()
  *_, last = train(CONFIG, experiment=experiment)
  _, outputs = experiment.final_evaluators['test'].collect(last.state, jax.random.key(0))
  return last.metrics, jax.tree.leaves(jax.device_get(last.state.params)), outputs


def test_other_prices_after_a_day_change_no_forecast_up_to_it(monkeypatch):
  metrics, params, before = forecasts()
  _, first, end = finance.year_ends(finance.sp500_days().dates, FOLD, CONFIG.num_folds)
  half, load = (end - first) // 2, package.load

  def changed():
    frame = load().astype(float)
    frame.iloc[first + half + 1 :] *= np.linspace(2, 3, len(frame) - first - half - 1)[:, None]
    return frame

  monkeypatch.setattr(package, 'load', changed)
  other, same, after = forecasts()
  assert all(one.tobytes() == two.tobytes() for one, two in zip(params, same, strict=True))
  assert len(before) == end - first and before[: half + 1].tobytes() == after[: half + 1].tobytes()
  assert (before[half + 1 :] != after[half + 1 :]).mean() > 0.9
  assert metrics['validation/qlike'] == other['validation/qlike']
  assert metrics['test/garch_qlike'] != other['test/garch_qlike'] and np.isfinite(metrics['test/diebold_mariano'])
