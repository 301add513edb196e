"""Perplexity and bits of documents against the formula."""

import numpy as np
import pytest
from matplotlib.figure import Figure

from research.data.windows import context_examples
from research.evaluate import language

RANDOM = np.random.default_rng(0)
CHARACTERS = np.array([1, 2, 0, 4], np.float32)
DOCUMENTS = [RANDOM.integers(0, 4, size) for size in (70, 30, 55)]
COST = np.array([0.3, 1.1, 2.0, 0.7])  # nats of each token


def test_every_document_costs_what_its_tokens_do():
  rows = context_examples(DOCUMENTS, 4, 10).arrays
  losses = COST[rows['targets']].astype(np.float32)
  targets = np.concatenate([tokens[1:] for tokens in DOCUMENTS])
  ((name, perplexity),) = language.perplexity(losses, rows)
  assert name == 'perplexity'
  np.testing.assert_allclose(perplexity, np.exp(COST[targets].mean()), rtol=1e-6)
  found = dict(language.bits_by_document(['one', 'two', 'three'], CHARACTERS)(losses, rows))
  for name, tokens in zip(('one', 'two', 'three'), DOCUMENTS, strict=True):
    expected = COST[tokens[1:]].sum() / np.log(2) / CHARACTERS[tokens[1:]].sum()
    np.testing.assert_allclose(found[f'bits_per_character_{name}'], expected, rtol=1e-6)


def test_every_target_counts_once_unless_the_rows_say_otherwise():
  rows = {'targets': np.zeros((2, 3), int)}
  np.testing.assert_array_equal(language.target_weights(rows), np.ones((2, 3)))
  rows |= {'mask': np.array([1, 0]), 'weights': np.array([[2, 0, 0.5]] * 2)}
  np.testing.assert_array_equal(language.target_weights(rows), [[2, 0, 0.5], [0, 0, 0]])


def test_what_is_measured_on_nothing_is_left_out():
  rows = context_examples(DOCUMENTS, 4, 10).arrays
  losses, none = np.ones(rows['targets'].shape), np.zeros_like(rows['weights'])
  assert not dict(language.perplexity(losses, {**rows, 'weights': none}))
  assert not dict(language.bits_by_document(['one', 'two', 'three'], CHARACTERS)(losses, {**rows, 'weights': none}))


def test_what_the_mask_of_the_data_leaves_out_costs_nothing():
  rows = context_examples(DOCUMENTS, 4, 10).arrays
  losses, mask = RANDOM.random(rows['targets'].shape), RANDOM.integers(0, 2, rows['targets'].shape)
  weighted = {**rows, 'weights': rows['weights'] * mask}
  targets = np.where(mask, rows['targets'], -100)
  for report in (language.perplexity, language.bits_by_document(['one', 'two', 'three'], CHARACTERS)):
    found = dict(report(np.where(mask, losses, np.nan), {**rows, 'targets': targets, 'mask': mask}))
    assert found == pytest.approx(dict(report(losses, weighted)))


def test_a_perplexity_that_no_float_holds_is_the_greatest():
  ((_, perplexity),) = language.perplexity(np.full((1, 3), 1e4), {'targets': np.zeros((1, 3), int)})
  assert perplexity == np.exp(700)


def test_bits_by_context_are_drawn_of_whole_windows_alone():
  rows = context_examples(DOCUMENTS, 4, 10).arrays
  losses = np.tile(np.arange(14.0, dtype=np.float32), (len(rows['targets']), 1))
  losses[:, 1:] += np.where(rows['weights'][:, :1] == 0, 0, 7)  # first windows and short ones are left out
  ((name, figure),) = language.bits_by_context(4)(losses, rows)
  assert name == 'bits_by_context' and isinstance(figure, Figure)
  read, bits = figure.axes[0].lines[0].get_data()
  np.testing.assert_allclose(read, np.arange(1, 14))
  np.testing.assert_allclose(bits, np.arange(13) / np.log(2), rtol=1e-6)
  ((_, figure),) = language.bits_by_context(4, bins=3)(losses, rows)
  read, bits = figure.axes[0].lines[0].get_data()  # tokens 0 to 1, 2 to 12
  np.testing.assert_allclose(read, [1.5, 8])
  np.testing.assert_allclose(bits, np.array([0.5, 7]) / np.log(2), rtol=1e-6)
  one = context_examples(DOCUMENTS, 1, 10).arrays
  assert len(list(language.bits_by_context(1)(np.ones(one['targets'].shape), one))) == 1
  short = {name: array[:1] for name, array in rows.items()}
  assert list(language.bits_by_context(4)(losses[:1], short)) == []
