"""What a run measures and keeps: scores and the best checkpoint, and reports that raise."""

import dataclasses
import json
import operator

import numpy as np
import pytest
from runs import drain, make

from research.evaluate import figures
from research.train import recorder


def scores(workdir) -> dict[int, float | None]:
  """By step of the checkpoints that are there."""
  manifests = {int(path.parent.name): path.read_text() for path in (workdir / 'checkpoints').glob('*/manifest')}
  return {step: json.loads(text.splitlines()[1])['score'] for step, text in sorted(manifests.items())}


def test_a_score_belongs_to_the_step_of_its_evaluation(tmp_path):
  config = make('classifier', steps=15, eval_every=10, checkpoint_every=5, keep_latest=3)
  final = drain(config, tmp_path)[-1].metrics
  evaluated = {line['step']: line.get('validation/accuracy') for line in recorder.read(tmp_path)}
  assert scores(tmp_path) == {5: None, 10: evaluated[10], 15: final['validation/accuracy']}


@dataclasses.dataclass
class Scored:
  """An evaluator whose scores are these, by step; and the experiment that is chosen by it."""

  by_step: dict[int, float]

  def __call__(self, state, key):
    if int(state.step) in self.by_step:  # else it is the number of a report that has failed
      yield 'score', self.by_step[int(state.step)]

  def experiment(self, config):
    evaluators = {'validation': self}
    score = operator.itemgetter('validation/score')
    return dataclasses.replace(config.build(), evaluators=evaluators, final_evaluators=evaluators, score=score)


@pytest.mark.parametrize(
  ('keep', 'saved', 'left'),
  [
    (2, [3, 6, 9, 10, 12, 14], {9: 0.7, 12: 0.7, 14: None}),
    (1, [3, 9, 10, 14], {9: 0.7, 10: None, 14: None}),
    (0, [10, 14], {10: None, 14: None}),
  ],
)
def test_a_new_best_is_saved_when_it_is_measured(keep, saved, left, tmp_path):
  scored = Scored({3: 0.5, 6: 0.4, 9: 0.7, 12: 0.7})
  config = make('classifier', steps=14, eval_every=3, checkpoint_every=10, keep_best=keep)
  records = drain(config, tmp_path, scored.experiment(config))
  assert [record.step for record in records if record.status == 'saving'] == saved
  assert scores(tmp_path) == left


def test_the_final_evaluation_may_make_the_last_checkpoint_the_best(tmp_path):
  scored = Scored({3: 0.5, 6: 0.4, 7: 0.6})
  config = make('classifier', steps=7, eval_every=3, checkpoint_every=0, keep_latest=1)
  drain(config, tmp_path, scored.experiment(config))
  assert scores(tmp_path) == {7: 0.6}
  assert not (tmp_path / 'checkpoints' / 'unfinished').exists()


def test_a_score_that_raises_costs_the_best_checkpoint_and_not_the_run(tmp_path, caplog):
  config = make('classifier', steps=2, eval_every=1)
  scored = dataclasses.replace(config.build(), score=operator.itemgetter('validation/nothing'))
  drain(config, tmp_path, scored)
  lines = [record.getMessage() for record in caplog.records]
  assert "step 1 has no score: it raised KeyError: 'validation/nothing'" in lines
  assert scores(tmp_path) == {2: None} and (tmp_path / 'result.json').exists()


def broken(outputs, rows):
  yield 'half', 0.5
  raise ZeroDivisionError('division by zero')


def without_a_figure(outputs, rows):
  figure, (axis,) = figures.make_figure(1, 1, (1, 1))
  axis.set_title(r'$\nonsense$')
  yield 'undrawn', figure


def with_broken_reports(evaluators):
  reports = (broken, without_a_figure)
  return {
    split: dataclasses.replace(evaluator, reports=(*reports, *evaluator.reports))
    for split, evaluator in evaluators.items()
  }


def test_a_report_that_raises_costs_no_other_number(tmp_path, told, fault):
  config = make('classifier', steps=10, eval_every=10)
  experiment = config.build()
  evaluators = [with_broken_reports(part) for part in (experiment.evaluators, experiment.final_evaluators)]
  faulty = dataclasses.replace(experiment, evaluators=evaluators[0], final_evaluators=evaluators[1])
  with pytest.raises(ZeroDivisionError):
    drain(config, tmp_path, faulty)
  lines = recorder.read(tmp_path)
  assert [line['step'] for line in lines if 'validation/accuracy' in line] == [10, 10]
  assert lines[-1]['test/half'] == 0.5 and lines[-1]['test/accuracy'] > 0 and scores(tmp_path)[10] > 0
  line, code = told(lambda: drain(config, tmp_path, faulty))
  assert not (tmp_path / 'result.json').exists()
  drain(config, tmp_path)
  drain(config, tmp_path / 'alone')
  result, alone = ((path / 'result.json').read_text() for path in (tmp_path, tmp_path / 'alone'))
  assert json.loads(result)['metrics'] == json.loads(alone)['metrics']
  kept = 'all other numbers, and the last checkpoint, which is measured again'
  fault('a report of an evaluation raises', line, code, kept)


def test_a_number_that_is_not_finite_is_told_and_left_out(tmp_path, caplog):
  config = make('classifier', steps=4, eval_every=0)
  experiment = config.build()
  test = experiment.final_evaluators['test']
  undefined = lambda outputs, rows: iter([('undefined', np.nan), ('defined', np.float32(1)), ('whole', 3)])  # noqa: E731
  test = dataclasses.replace(test, reports=(*test.reports, undefined))
  drain(config, tmp_path, dataclasses.replace(experiment, final_evaluators={'test': test}))
  assert any('test/undefined is nan, so it is left out' in record.getMessage() for record in caplog.records)
  result = json.loads((tmp_path / 'result.json').read_text(), parse_constant=pytest.fail)
  assert 'test/undefined' not in result['metrics']
  assert (result['metrics']['test/defined'], result['metrics']['test/whole']) == (1, 3)
  assert not any('test/undefined' in line for line in recorder.read(tmp_path))
