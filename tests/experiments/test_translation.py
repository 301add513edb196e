"""The wiring of the translation: what the decoder is fed with, and a sampler that needs no data."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.seq2seq_translation import config as experiment
from research.data import pairs as parallel
from research.data.pairs import Pairs
from research.errors import ConfigError
from research.models.rnn import Padded
from research.models.seq2seq import translate
from research.train.experiment import Request

TOKENIZER = parallel.shared_tokenizer(Pairs(['In the beginning God made light.'], ['En el principio.']), 280)


def test_end_is_the_token_that_ends_a_sentence():
  assert TOKENIZER.token(parallel.END) == experiment.END


def test_the_decoder_is_fed_with_what_comes_before():
  batch = {
    'inputs': np.array([[5, 6, 0]]),
    'lengths': np.array([2]),
    'targets': np.array([[7, 8, 9, 0, 0]]),
    'target_lengths': np.array([4]),
  }
  paired = experiment.as_pair(batch)
  np.testing.assert_array_equal(paired['inputs'].target, [[0, 7, 8, 9, 0]])
  np.testing.assert_array_equal(paired['inputs'].source.lengths, [2])
  np.testing.assert_array_equal(paired['targets'], batch['targets'])


@pytest.mark.parametrize('decoder', ['luong', 'bahdanau'])
def test_sampler_translates_the_prompt(decoder):
  config = experiment.get_config('tiny')
  config.decoder = decoder
  model, tokens = config.model(TOKENIZER.size), TOKENIZER.encode('God made light.')
  source = Padded(jnp.asarray(tokens[None]), jnp.array([len(tokens)]))
  batch = {'inputs': source.values, 'lengths': source.lengths, 'targets': jnp.ones((1, 3), jnp.int32)}
  variables = model.init(jax.random.key(0), experiment.as_pair(batch)['inputs'])
  sample = config.sampler({'tokenizer': TOKENIZER.to_json()})
  drawn = dict(sample(variables, jax.random.key(1), Request(prompt='God made light.')))
  expected = translate(model, variables, source, experiment.END, config.beam_size, config.length_penalty)
  assert drawn['translation'] == TOKENIZER.decode(np.asarray(expected.tokens[0]))
  assert len(drawn['attention'].axes) == 1
  with pytest.raises(ConfigError, match="--prompt='': give English text"):
    list(sample(variables, jax.random.key(1), Request()))
  with pytest.raises(ConfigError, match="--input='verse.txt': is not used by this model; it takes --prompt"):
    list(sample(variables, jax.random.key(1), Request('God made light.', 'verse.txt')))


@pytest.mark.parametrize(
  ('field', 'value', 'fault'),
  [
    ('decoder', 'transformer', "config.decoder='transformer': must be luong or bahdanau"),
    ('beam_size', 0, 'config.beam_size=0: must be at least 1'),
    ('verses', -1, 'config.verses=-1: must not be negative'),
  ],
)
def test_values_that_no_run_could_use(field, value, fault):
  with pytest.raises(ConfigError, match=fault):
    dataclasses.replace(experiment.get_config('tiny'), **{field: value}).validate()


def test_the_validation_part_is_the_same_whenever_it_is_measured(monkeypatch):
  verses = [f'{number} In the beginning God made light.' for number in range(40)]
  parts = parallel.Splits(*(Pairs(verses, verses) for _ in range(3)))
  monkeypatch.setattr(experiment.bible, 'bible_en_es', lambda: parts)
  built = experiment.get_config('tiny').build()
  watched, final = built.evaluators['validation'], built.final_evaluators['validation']
  assert watched.examples.fingerprint() == final.examples.fingerprint() and len(final.examples) == 8
