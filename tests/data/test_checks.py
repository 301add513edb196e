"""Examples that nothing right can be learned from are refused in one line, before anything is compiled."""

import dataclasses

import jax
import numpy as np
import optax
import pytest
from flax import linen as nn

from research.data import checks
from research.data.examples import Arrays
from research.data.source import Source
from research.errors import DataError, NotFiniteError
from research.evaluate.evaluator import Evaluator, make_eval_step
from research.expected import Expected
from research.models.mlp import MLP
from research.objectives.classification import binary_cross_entropy, softmax_cross_entropy
from research.objectives.ctc import ctc
from research.objectives.forecasting import forecast_error, qlike
from research.objectives.language import next_token
from research.objectives.regression import mean_squared_error
from research.objectives.translation import token_cross_entropy
from research.ops.layers import Embed
from research.tasks.network import Network, predictor
from research.tasks.supervised import supervised
from research.train.config import Config
from research.train.experiment import Experiment, checked
from research.train.loop import train

COUNT = 20
NUMBERS = np.random.default_rng(0).normal(size=(COUNT, 5)).astype(np.float32)
LABELS = (np.arange(COUNT) % 10).astype(np.int32)
TOKENS = np.arange(COUNT * 4, dtype=np.int32).reshape(COUNT, 4) % 7
FLAGS = LABELS % 2
SEVENTH = np.arange(COUNT) == 7


class Words(nn.Module):
  """Logits [batch, length, 10] of tokens; the embedding is ours or Linen's."""

  embed: type = Embed

  @nn.compact
  def __call__(self, inputs, train=False):
    return nn.Dense(10)(self.embed(7, 4)(inputs))


class Averaged(nn.Module):
  """Logits [batch, 10] of tokens."""

  embed: type = Embed

  @nn.compact
  def __call__(self, inputs, train=False):
    return Words(self.embed)(inputs).mean(1)


class Halved(nn.Module):
  """Logits [batch, length / 2, 10] of tokens."""

  @nn.compact
  def __call__(self, inputs, train=False):
    return Words()(inputs[:, ::2])


class Deaf(nn.Module):
  """Takes no `train`."""

  @nn.compact
  def __call__(self, inputs):
    return nn.Dense(10)(inputs)


@dataclasses.dataclass(frozen=True)
class Remote:
  """Examples that are not in memory, of which nothing but rows is known."""

  arrays: Arrays

  def __len__(self) -> int:
    return len(self.arrays)

  def rows(self, indices):
    return self.arrays.rows(indices)

  def fingerprint(self) -> str:
    return ''


TEN = (MLP((4,), 10), softmax_cross_entropy(0.1))
ONE = (MLP((4,), 1), mean_squared_error())
SEQUENCES = {'inputs': TOKENS, 'targets': TOKENS}
STRINGS = {'inputs': TOKENS, 'targets': TOKENS[:, :1] + 1, 'target_lengths': np.full(COUNT, 1)}


def changed(array: np.ndarray, place, value) -> np.ndarray:
  array = array.copy()
  array[place] = value
  return array


def experiment(parts, model=TEN[0], objective=TEN[1], **options) -> Experiment:
  """Of the training part, and of the validation and test parts where there are any."""
  train, *others = parts
  task = supervised(model, objective, optax.sgd(0.1), **options)
  eval_step = make_eval_step(task, predictor(Network(model)))
  evaluators = {
    name: Evaluator(eval_step, split, 8) for name, split in zip(('validation', 'test'), others, strict=False)
  }
  return Experiment(task, Source(train, 8), final_evaluators=evaluators)


def example(**arrays) -> Arrays:
  return Arrays({'inputs': NUMBERS, 'targets': LABELS, **arrays})


FAULTS = {  # arrays, model and objective, and what the line says behind the name of the part
  'labels outside the classes': (
    {'targets': LABELS + 1},
    TEN,
    ' targets: example 9 has 10; must be integers from 0 to 9: the model has 10 outputs',
  ),
  'labels from -1 on': ({'targets': LABELS - 1}, TEN, ' targets: example 0 has -1; must be integers from 0 to 9'),
  'a label of -100': (
    {'targets': changed(LABELS, 7, -100)},
    TEN,
    ' targets: example 7 has -100; must be integers from',
  ),
  'more classes than outputs': ({}, (MLP((4,), 9), TEN[1]), ' targets: example 9 has 9; .* 8: the model has 9 outputs'),
  'arrays of unequal length': (
    {'targets': LABELS[:15]},
    TEN,
    ' targets: has 15 examples but inputs has 20; all must have the same number',
  ),
  'a part without examples': ({'inputs': NUMBERS[:0], 'targets': LABELS[:0]}, TEN, ': has no examples'),
  'labels that are text': (
    {'targets': np.array(list('abcdefghij') * 2)},
    TEN,
    " targets: example 0 has 'a'; must be numbers; encode labels with np.unique",
  ),
  'labels that are objects': (
    {'targets': np.array(['a', 1] * 10, object)},
    TEN,
    " targets: example 0 has 'a'; must be",
  ),
  'one-hot labels': (
    {'targets': np.eye(10)[LABELS]},
    TEN,
    r' targets: is \[examples, 10\]; must be \[examples\], integers from 0 to 9: .*; use argmax',
  ),
  'labels in a column': (
    {'targets': LABELS[:, None]},
    TEN,
    r' targets: is \[examples, 1\]; must be \[examples\], integ',
  ),
  'labels that are floats': (
    {'targets': LABELS.astype(np.float32)},
    TEN,
    r' targets: example 0 has 0.0 \(float32\); must be integers from 0 to 9',
  ),
  'tokens beyond an embedding': (
    {'inputs': changed(TOKENS, (11, 2), 7)},
    (Averaged(), TEN[1]),
    ' inputs: example 11 has 7; must be integers from 0 to 6: the embedding has 7 vectors',
  ),
  'tokens beyond an embedding of Linen': (
    {'inputs': changed(TOKENS, (11, 2), -1)},
    (Averaged(nn.Embed), TEN[1]),
    ' inputs: example 11 has -1; must be integers from 0 to 6',
  ),
  'a mask of parts': ({'mask': np.full(COUNT, 0.5)}, TEN, ' mask: example 0 has 0.5; must be 0 or 1'),
  'a mask that leaves nothing': ({'mask': np.zeros(COUNT)}, TEN, ' mask: is 0 everywhere'),
  'labels -1 and 1 of two classes': (
    {'targets': 2 * FLAGS - 1},
    (MLP((4,), 1), binary_cross_entropy()),
    ' targets: example 0 has -1; must be 0 or 1$',
  ),
  'more targets than outputs': (
    {'targets': NUMBERS},
    ONE,
    r' targets: is \[examples, 5\]; must be \[examples, 1\], num',
  ),
  'forecasts that would be broadcast': (
    {'targets': NUMBERS[:, :1]},
    (MLP((4,), 3), forecast_error((0.1, 0.9))),
    r' targets: is \[examples, 1\]; must be \[examples\], numbers',
  ),
  'squares below 0': (
    {'targets': NUMBERS[:, 0]},
    (ONE[0], qlike()),
    ' targets: example . has -.*; must be numbers of at',
  ),
  'a blank among the labels': (
    {**SEQUENCES, 'target_lengths': np.full(COUNT, 1), 'lengths': np.full(COUNT, 4)},
    (Words(), ctc()),
    ' targets: example 0 has 0; must be integers from 0 to 9 other than 0',
  ),
  'more tokens than places': (
    {**SEQUENCES, 'target_lengths': np.full(COUNT, 5)},
    (Words(), token_cross_entropy()),
    ' target_lengths: example 0 has 5; must be integers from 0 to 4: the number of positions in targets',
  ),
  'a list for an array': (
    {'targets': LABELS.tolist()},
    TEN,
    r' targets: is a list; must be an array \[examples, ...\]; use np.asarray',
  ),
  'no arrays': (None, TEN, ': has no arrays; there must be inputs'),
  'numbers that the device would cut': (
    {'inputs': changed(NUMBERS.astype(np.int64), (7, 0), 2**40)},
    TEN,
    f' inputs: example 7 has {2**40}; must be representable in int32',
  ),
  'numbers that are infinite on the device': (
    {'targets': changed(NUMBERS[:, 0].astype(float), 7, 1e300)},
    ONE,
    r' targets: example 7 has 1e\+300; must be representable in float32',
  ),
  'a mask of other positions': (
    {'mask': np.ones((COUNT, 3))},
    TEN,
    r' mask: is \[examples, 3\]; must be \[examples\] or a prefix of the shape of targets, \[examples\]',
  ),
  'lengths beyond the inputs': (
    {'lengths': np.full(COUNT, 6)},
    TEN,
    ' lengths: example 0 has 6; must be integers from 0 to 5: the number of positions in inputs',
  ),
  'lengths beyond the frames': (
    {**STRINGS, 'lengths': np.full(COUNT, 4)},
    (Halved(), ctc()),
    ' lengths: example 0 has 4; must be integers from 0 to 2: the model has logits of 2 frames',
  ),
  'strings without lengths': (
    {**STRINGS},
    (Words(), ctc()),
    ": has no array 'lengths', only inputs, targets, target_l",
  ),
  'weights below 0': (
    {**SEQUENCES, 'weights': np.where(TOKENS == 3, -1, 1)},
    (Words(), next_token()),
    ' weights: example 0 has -1; must be numbers of at least 0: how much a target counts',
  ),
  'target tokens that do not exist': (
    {**SEQUENCES, 'targets': TOKENS + 6},
    (Words(), next_token()),
    ' targets: example 1 has 10; must be integers from 0 to 9',
  ),
}


@pytest.mark.parametrize('name', FAULTS)
def test_what_is_wrong_is_told_before_anything_is_compiled(name, caplog):
  arrays, made, line = FAULTS[name]
  wrong = experiment([Arrays({}) if arrays is None else example(**arrays)], *made)
  with jax.log_compiles(), pytest.raises(DataError, match=f'^training{line}'):
    next(train(Config(steps=2, batch_size=8), experiment=wrong))
  assert not [record for record in caplog.records if record.getMessage().startswith('Compiling')]


@pytest.mark.parametrize('split', ['validation', 'test'])
def test_all_parts_are_checked(split):
  parts = [example() for _ in range(3)]
  parts[1 + (split == 'test')] = example(targets=LABELS + 1)
  with pytest.raises(DataError, match=f'^{split} targets: example 9 has 10'):
    checked(experiment(parts))


def test_what_is_not_in_memory_is_checked_as_it_is_read():
  wrong = Remote(example(targets=changed(LABELS, 7, -100)))
  found = checked(experiment([wrong, wrong]))
  right = np.arange(7)
  np.testing.assert_array_equal(found.train.examples.rows(right)['targets'], LABELS[:7])
  assert checked(found).train.examples is found.train.examples
  for split, examples in (
    ('training', found.train.examples),
    ('validation', found.final_evaluators['validation'].examples),
  ):
    with pytest.raises(DataError, match=f'^{split} targets: example 7 has -100'):
      examples.rows(np.array([3, 7, 1]))
  with pytest.raises(DataError, match='^training targets: example 7 has -100'):
    list(train(Config(steps=6, batch_size=8, log_every=1, eval_every=0), experiment=experiment([wrong])))


def test_examples_of_a_part_must_fit_the_model_that_is_trained():
  with pytest.raises(DataError, match=r'^inputs: are \[4\] for an example, but \[5\] in training'):
    checked(experiment([example(), example(inputs=NUMBERS[:, :4])]))


@pytest.mark.parametrize(
  ('arrays', 'model', 'line'),
  [
    ({'inputs': TOKENS.astype(float)}, Averaged(), 'inputs: are float32, which an embedding cannot read; must be int'),
    ({'inputs': TOKENS > 3}, Averaged(nn.Embed), 'inputs: are bool, which an embedding cannot read; must be integers'),
    ({'images': NUMBERS}, TEN[0], "the examples have no array 'inputs', which the inputs need, only images, t"),
  ],
)
def test_inputs_that_a_model_cannot_read(arrays, model, line):
  with pytest.raises(DataError, match=f'^{line}'):
    checked(experiment([Arrays({**arrays, 'targets': LABELS})], model))


def test_a_token_out_of_range_that_no_check_sees_is_not_blamed_on_the_learning_rate():
  unseen = experiment([example(inputs=TOKENS + 1, targets=TOKENS[:, :2])], Halved(), next_token())
  with pytest.raises(NotFiniteError, match='the loss of step 1 .* look for an index out of range'):
    list(train(Config(steps=1, batch_size=8), experiment=unseen))


POSITIONS = np.arange(4) < np.array([4, 1, 3, 2] * 5)[:, None]


@pytest.mark.parametrize(
  ('made', 'arrays'),
  [
    (TEN, {'targets': changed(LABELS, 7, -100), 'mask': ~SEVENTH}),
    (TEN, {'targets': LABELS.astype(np.uint8)}),
    ((MLP((4,), 1), binary_cross_entropy()), {'targets': FLAGS == 1}),
    (ONE, {'targets': np.where(SEVENTH, np.nan, NUMBERS[:, 0])}),  # a NaN is found where it spoils a loss
    ((Words(), next_token()), {**SEQUENCES, 'targets': np.where(POSITIONS, TOKENS, -100), 'weights': POSITIONS}),
    ((Words(), next_token()), {**SEQUENCES, 'targets': np.where(POSITIONS, TOKENS, -100), 'mask': POSITIONS}),
    (
      (Words(), token_cross_entropy()),
      {**SEQUENCES, 'targets': np.where(POSITIONS, TOKENS, -100), 'target_lengths': POSITIONS.sum(1)},
    ),
    ((Averaged(), TEN[1]), {'inputs': np.where(POSITIONS, TOKENS, -1), 'lengths': POSITIONS.sum(1)}),
  ],
)
def test_what_does_not_count_may_hold_anything(made, arrays):
  right = experiment([example(**arrays)], *made)
  assert checked(right).train.examples is right.train.examples


def test_what_follows_a_length_does_not_count_in_any_feature():
  rows = {'inputs': np.zeros((2, 3, 2)), 'lengths': np.array([1, 3])}
  counts = checks._counts('inputs', rows, Expected(lengths='lengths'))
  np.testing.assert_array_equal(counts.sum(-1), [[2, 0, 0], [2, 2, 2]])


def test_what_is_preprocessed_is_not_taken_for_what_the_objective_sees():
  checked(
    experiment([example(targets=LABELS + 1)], preprocess=lambda batch: {**batch, 'targets': batch['targets'] - 1})
  )
  reconstruction = {'model': MLP((4,), 5), 'objective': mean_squared_error()}
  images = Arrays({'inputs': NUMBERS})
  checked(experiment([images], **reconstruction, preprocess=lambda batch: {**batch, 'targets': batch['inputs']}))


@pytest.mark.parametrize('model', [Deaf(), nn.Sequential([nn.Dense(10)])])
def test_a_model_without_an_argument_for_training(model, told, fault):
  name, wrong = 'a model that takes no argument train', experiment([example()], model)
  line, code = told(lambda: next(train(Config(steps=2, batch_size=8), experiment=wrong)))
  assert line.endswith('takes no argument train; write __call__(self, inputs, train=False)')
  if isinstance(model, Deaf):
    fault(name, line, code, 'nothing is started')


@pytest.mark.parametrize(
  'name',
  [
    'labels outside the classes',
    'labels that are text',
    'labels that are floats',
    'one-hot labels',
    'arrays of unequal length',
    'tokens beyond an embedding',
    'a part without examples',
  ],
)
def test_faults_that_a_user_reads(name, tmp_path, told, fault):
  arrays, made, _ = FAULTS[name]
  wrong, workdir = experiment([example(**arrays)], *made), tmp_path / 'run'
  line, code = told(lambda: list(train(Config(steps=2, batch_size=8), workdir, experiment=wrong)))
  assert not (workdir / 'config.json').exists()
  fault(name, line, code, 'nothing is started')


def test_only_numbers_that_a_device_would_cut_are_refused():
  ends = np.array([-(2**31), 2**31 - 1])
  assert not checks._beyond(np.dtype(np.int32), ends).any()
  assert checks._beyond(np.dtype(np.int32), ends + [-1, 1]).all()
