"""Reports of translations: the scores of sacrebleu, and the map of what was looked at."""

import numpy as np
import pytest
import sacrebleu

from research.evaluate import translation
from research.models.search import Hypotheses

WORDS = np.array(['', ' the', ' sea', ' was', ' calm', ' and', ' light', '.'])
GUESSES = np.array([[1, 2, 3, 4, 7, 0, 0], [6, 5, 1, 2, 3, 4, 7]])
REFERENCES = np.array([[1, 2, 3, 4, 7, 0], [6, 5, 1, 2, 7, 0]])


def decode(tokens):
  return ''.join(WORDS[tokens]).strip()


def outputs():
  kept = np.random.default_rng(0).dirichlet(np.ones(4), (2, 7)).astype(np.float16)
  return Hypotheses(GUESSES, np.zeros(2), kept)


def test_scores_are_those_of_the_decoded_text():
  scores = dict(translation.corpus_scores(decode)(outputs(), {'targets': REFERENCES}))
  predictions, references = (
    ['the sea was calm.', 'light and the sea was calm.'],
    ['the sea was calm.', 'light and the sea.'],
  )
  assert scores['bleu'] == pytest.approx(sacrebleu.corpus_bleu(predictions, [references]).score)
  assert scores['chrf'] == pytest.approx(sacrebleu.corpus_chrf(predictions, [references]).score)
  assert 0 < scores['bleu'] < 100


def test_signatures_are_those_that_are_documented():
  doc = translation.corpus_scores.__doc__
  for metric in (sacrebleu.BLEU(), sacrebleu.CHRF()):
    metric.corpus_score(['a'], [['a']])
    assert str(metric.get_signature()).split('|version')[0] in doc


def test_a_perfect_translation_scores_100():
  perfect = Hypotheses(REFERENCES, np.zeros(2), np.zeros((2, 6, 4)))
  assert dict(translation.corpus_scores(decode)(perfect, {'targets': REFERENCES}))['bleu'] == pytest.approx(100)


def test_the_map_shows_the_weights_of_the_tokens_that_there_are():
  rows = {'inputs': np.array([[1, 2, 0, 0], [6, 1, 2, 0]]), 'lengths': np.array([2, 3])}
  ((name, figure),) = translation.attention_of_one(decode, 0, tokens=3)(outputs(), rows)
  (axis,) = figure.axes
  assert name == 'attention'
  np.testing.assert_array_equal(axis.images[0].get_array(), outputs().kept[1, :7, :3].astype(np.float32))
  assert [label.get_text() for label in axis.get_xticklabels()] == ['light', 'the', 'sea']
  assert [label.get_text() for label in axis.get_yticklabels()] == ['light', 'and', 'the', 'sea', 'was', 'calm', '.']


def test_tokens_are_drawn_as_they_are():
  names = ['$5$', '\n', 'á']
  figure = translation.attention_of(lambda token: names[token[0]], 9, np.arange(3), np.arange(2), np.ones((2, 3)))
  labels = figure.axes[0].get_xticklabels()
  assert [label.get_text() for label in labels] == ['$5$', '\\n', 'á'] and not labels[0].get_parse_math()


def test_length_of_tokens():
  assert [translation.length_of(np.array(row), 0) for row in ([0, 1], [1, 2, 0, 0], [1, 2])] == [0, 2, 2]
