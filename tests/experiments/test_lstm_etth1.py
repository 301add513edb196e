"""Forecasts are drawn from a workdir's scale and variables alone, after a made-up series or a table."""

import dataclasses

import jax
import numpy as np
import pytest

from experiments.lstm_etth1 import config as experiment
from research.data import series
from research.errors import ConfigError, DataError
from research.tasks.base import evaluation_variables
from research.train.experiment import Request

COLUMNS = ('load', 'oil')
VALUES = np.random.default_rng(0).normal((3, 40), (2, 9), (400, 2))
KEY = jax.random.key(0)


@pytest.fixture
def config(monkeypatch):
  def ett(name, context, horizon):
    return series.windows(VALUES, None, (200, 300, 400), context, horizon, COLUMNS)

  monkeypatch.setattr(experiment.forecasting, 'ett', ett)
  return experiment.get_config('tiny')


@pytest.fixture
def run(config):
  """(experiment, state, function of a table's path that gives the axes of the one figure)."""
  built = config.build()
  state = built.task.init(KEY, built.train.examples.rows(np.arange(2)))
  sample = config.sampler(built.fitted)

  def axes(path=''):
    ((name, figure),) = sample(evaluation_variables(state), KEY, Request(input=str(path)))
    assert name == 'forecast'
    return figure.axes

  return built, state, axes


def write(path, values, head='oil,date,load'):
  lines = (f'{oil!r},0,{load!r}' for load, oil in values.tolist())
  path.write_text('\n'.join([head, *lines]))
  return path


def test_what_follows_the_data_is_drawn_in_their_units(run, config):
  built, state, axes = run
  test = built.final_evaluators['test'].examples
  outputs = np.asarray(built.predict(state, {'inputs': test.inputs[-config.context :][None]}))[0]
  for variable, axis in enumerate(axes()):
    past, forecast = axis.lines
    assert axis.get_title() == COLUMNS[variable]
    np.testing.assert_allclose(past.get_ydata(), VALUES[-config.context :, variable], rtol=1e-5)
    expected = VALUES[:200, variable].mean() + VALUES[:200, variable].std() * outputs[:, variable, 0]
    np.testing.assert_allclose(forecast.get_ydata(), expected, rtol=1e-4)
    assert len(axis.collections) == 1  # the interval


def test_a_table_with_the_same_end_gives_the_same_forecast(run, tmp_path):
  _, _, axes = run
  table = write(tmp_path / 'table.csv', VALUES[300:])
  for one, other in zip(axes(), axes(table), strict=True):
    np.testing.assert_allclose(one.lines[1].get_ydata(), other.lines[1].get_ydata(), rtol=1e-5)


def test_tables_that_cannot_be_forecast_from_are_told(run, config, tmp_path):
  _, _, axes = run
  with pytest.raises(DataError, match=f'short.csv: has 47 steps; a forecast needs {config.context}'):
    axes(write(tmp_path / 'short.csv', VALUES[:47]))
  with pytest.raises(DataError, match='other.csv: has no column oil; must have load, oil'):
    axes(write(tmp_path / 'other.csv', VALUES, head='gas,date,load'))
  with pytest.raises(FileNotFoundError, match='none.csv'):
    axes(tmp_path / 'none.csv')
  with pytest.raises(ConfigError, match="--prompt='cold': is not used by this model; it takes --input"):
    next(config.sampler(run[0].fitted)({}, KEY, Request(prompt='cold')))


def test_the_linear_yardstick_and_a_point_alone_are_a_field_away(config):
  for changed in ({'model': 'dlinear'}, {'quantiles': ()}):
    built = dataclasses.replace(config, **changed).build()
    rows = built.train.examples.rows(np.arange(2))
    outputs = built.predict(built.task.init(KEY, rows), rows)
    assert outputs.shape == (2, config.horizon, 2, 1 + len(changed.get('quantiles', config.quantiles)))


def test_an_unknown_model_is_told_before_any_data_are_asked_for(monkeypatch):
  monkeypatch.setattr(experiment.forecasting, 'ett', None)
  with pytest.raises(ConfigError, match="config.model='gru': must be lstm or dlinear"):
    experiment.Config(model='gru').build()
