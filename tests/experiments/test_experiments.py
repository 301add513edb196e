"""Every experiment folder: its tiny scale trains, its fields are told, its recorded runs reach what it promises."""

import dataclasses
import functools
import importlib
import json
from pathlib import Path

import numpy as np
import pytest

from launch.flags import fields
from research.data.examples import Examples
from research.errors import DataError
from research.parallel.mesh import MeshShape
from research.train.loop import train

ROOT = Path(__file__).resolve().parents[2]
NAMES = sorted(path.parent.name for path in ROOT.glob('experiments/*/config.py'))


def module_of(name):
  return importlib.import_module(f'experiments.{name}.config')


@dataclasses.dataclass(frozen=True)
class Few:
  """The first of many examples."""

  examples: Examples

  def __len__(self) -> int:
    return min(len(self.examples), 512)

  def rows(self, indices):
    return self.examples.rows(indices)

  def fingerprint(self) -> str:
    return self.examples.fingerprint()


def of_few(evaluators):
  return {
    name: dataclasses.replace(evaluator, examples=Few(evaluator.examples)) for name, evaluator in evaluators.items()
  }


@functools.cache
def tiny(name):
  """Config and experiment at the tiny scale, all measured once, at the end."""
  config = dataclasses.replace(
    module_of(name).get_config('tiny'), mesh=MeshShape(1), evaluate_every=0, evaluate_batch_size=32
  )
  try:
    return config, config.build()
  except DataError as error:
    pytest.skip(str(error))


@pytest.mark.parametrize('name', NAMES)
def test_tiny_scale_trains_and_measures(name):
  config, experiment = tiny(name)
  measured = {field: of_few(getattr(experiment, field)) for field in ('evaluators', 'final_evaluators')}
  records = list(train(dataclasses.replace(experiment, **measured), config))
  losses = [record.metrics['train/loss'] for record in records if 'train/loss' in record.metrics]
  assert len(losses) == config.steps // config.log_every and np.isfinite(losses).all()
  assert records[-1].status == 'done' and any(metric.startswith('test/') for metric in records[-1].metrics)
  assert np.isfinite(experiment.score(records[-1].metrics))


@pytest.mark.parametrize('name', NAMES)
def test_parts_are_disjoint(name):
  _, experiment = tiny(name)
  parts = [experiment.train.examples, *(evaluator.examples for evaluator in experiment.final_evaluators.values())]
  seen = [{row.tobytes() for row in part.rows(np.arange(len(part)))['inputs']} for part in parts]
  shared = [len(one & other) for i, one in enumerate(seen) for other in seen[:i]]
  # Some images of the two large sets are there twice, as their authors published them.
  assert max(shared) <= 0.01 * min(map(len, parts))


@pytest.mark.parametrize('name', NAMES)
def test_every_field_has_a_comment(name):
  assert [field for field, _, _, note in fields(module_of(name).get_config()) if not note] == []


@pytest.mark.parametrize('name', NAMES)
def test_recorded_runs_reach_the_target(name):
  target = module_of(name).TARGET
  runs = [json.loads(line) for line in (ROOT / f'experiments/{name}/results.jsonl').read_text().splitlines()]
  assert len({run['seed'] for run in runs}) >= 3
  assert target.reached(np.mean([run['metrics'][target.metric] for run in runs]))
