"""Values that no run of an experiment could use: one line that names the field, before any data are read."""

import dataclasses
import importlib

import pytest

from research.errors import ConfigError

INFINITY, NAN = float('inf'), float('nan')
WRONG = [
  ('cnn_digits', {'channels': (0, 8)}, 'channels=(0, 8): each must be a whole number of at least 1'),
  ('cnn_digits', {'channels': ()}, 'channels=(): must have at least one entry'),
  ('cnn_digits', {'dropout_rate': 1.5}, 'dropout_rate=1.5: must be at least 0 and less than 1'),
  ('cnn_digits', {'shift': -1}, 'shift=-1: must be a whole number of at least 0'),
  ('cnn_mnist', {'convs_per_stage': 0}, 'convs_per_stage=0: must be a whole number of at least 1'),
  ('cnn_mnist', {'zoom': 1.0}, 'zoom=1.0: must be at least 0 and less than 1'),
  ('mlp_mnist', {'activation': 'ReLu6'}, "activation='ReLu6': is unknown; nearest: relu"),
  ('mlp_mnist', {'hidden_sizes': (0,)}, 'hidden_sizes=(0,): each must be a whole number of at least 1'),
  ('mlp_breast_cancer', {'label_smoothing': 1.0}, 'label_smoothing=1.0: must be'),
  ('mlp_diabetes', {'huber_delta': 0.0}, 'huber_delta=0.0: must be more than 0'),
  ('mlp_diabetes', {'dropout_rate': 1.0}, 'dropout_rate=1.0: must be'),
  ('resnet_fashion_mnist', {'depth': 19}, 'depth=19: no such ResNet'),
  ('resnet_fashion_mnist', {'stem': 'poled'}, "stem='poled': is unknown; nearest: pooled"),
  ('resnet_fashion_mnist', {'tta_shift': -1}, 'tta_shift=-1: must be a whole number of at least 0'),
  ('resnet_fashion_mnist', {'width': 0}, 'width=0: must be a whole number of at least 1'),
  ('resnet_fashion_mnist', {'crop_padding': -1}, 'crop_padding=-1: must be a whole number of at least 0'),
  ('lstm_shakespeare', {'sequence_length': 0}, 'sequence_length=0: must be at least 1'),
  ('lstm_shakespeare', {'sequence_length': -1}, 'sequence_length=-1: must be at least 1'),
  ('lstm_shakespeare', {'eval_length': 0}, 'eval_length=0: must be from 1 to 65536'),
  ('lstm_shakespeare', {'eval_context': -1}, 'eval_context=-1: must be from 0 to 65536'),
  ('lstm_shakespeare', {'embed_dim': 0}, 'embed_dim=0: must be a whole number of at least 1'),
  ('lstm_shakespeare', {'hidden_size': 0}, 'hidden_size=0: must be a whole number of at least 1'),
  ('lstm_shakespeare', {'remat': 'everything'}, "remat='everything': LanguageModel has no blocks"),
  ('lstm_shakespeare', {'num_layers': 0}, 'num_layers=0: must be a whole number of at least 1'),
  ('lstm_shakespeare', {'dropout_rate': 1.0}, 'dropout_rate=1.0: must be at least 0 and less than 1'),
  ('lstm_shakespeare', {'dropout_rate': NAN}, 'dropout_rate=nan: must be finite'),
  ('lstm_shakespeare', {'cell': 'lsmt'}, "cell='lsmt': is unknown; nearest: lstm"),
  ('lstm_shakespeare', {'tokenizer': 'words'}, "tokenizer='words': is unknown; nearest: "),
  ('lstm_shakespeare', {'vocab_size': 255}, 'vocab_size=255: must be at least 256'),
  ('seq2seq_translation', {'vocab_size': 256}, 'vocab_size=256: must be at least 257'),
  ('seq2seq_translation', {'max_length': 0}, 'max_length=0: must be at least 1'),
  ('seq2seq_translation', {'attention_score': 'cosine'}, "attention_score='cosine': is unknown; nearest: "),
  (
    'seq2seq_translation',
    {'attention_score': 'dot', 'decoder_hidden_size': 64},
    'attention_score=dot: needs as many units in the decoder, 64, as in',
  ),
  ('seq2seq_translation', {'encoder_hidden_size': 0}, 'encoder_hidden_size=0: must be a whole number of at least 1'),
  ('seq2seq_translation', {'decoder_hidden_size': 0}, 'decoder_hidden_size=0: must be a whole number of at least 1'),
  ('seq2seq_translation', {'cell': 'rnn'}, "cell='rnn': is unknown; nearest: "),
  ('seq2seq_translation', {'decoder': 'lung'}, "decoder='lung': must be luong or bahdanau"),
  ('seq2seq_translation', {'dropout_rate': -0.1}, 'dropout_rate=-0.1: must be at least 0'),
  ('seq2seq_translation', {'label_smoothing': 1.0}, 'label_smoothing=1.0: must be at least 0 and less than 1'),
  ('seq2seq_translation', {'length_penalty': -1.0}, 'length_penalty=-1.0: must be at least 0 and finite'),
  ('seq2seq_translation', {'length_penalty': INFINITY}, 'length_penalty=inf: must be finite'),
  ('lstm_fsdd', {'hidden_size': 0}, 'hidden_size=0: must be a whole number of at least 1'),
  ('lstm_fsdd', {'frame_stack': 0}, 'frame_stack=0: must be from 1 to 61'),
  ('lstm_fsdd', {'frame_stack': 62}, 'frame_stack=62: must be from 1 to 61'),
  ('lstm_fsdd', {'recurrent_dropout_rate': 1.0}, 'recurrent_dropout_rate=1.0: must be'),
  ('lstm_fsdd', {'label_smoothing': 1.0}, 'label_smoothing=1.0: must be'),
  ('lstm_fsdd', {'speed': 1.0}, 'speed=1.0: must be at least 0 and less than 1'),
  ('lstm_fsdd', {'shift': -1}, 'shift=-1: must be a whole number of at least 0'),
  ('lstm_fsdd', {'freq_mask': -1}, 'freq_mask=-1: must be a whole number of at least 0'),
  ('lstm_fsdd', {'snr_db': (50.0, 20.0)}, 'snr_db=(50.0, 20.0): must be two finite numbers in increasing order'),
  ('lstm_fsdd', {'snr_db': (20.0,)}, 'snr_db=(20.0,): must be tuple[float, float]'),
  ('lstm_fsdd', {'snr_db': (-INFINITY, 20.0)}, 'snr_db=(-inf, 20.0): must be finite'),
  ('lstm_fsdd', {'snr_db': (NAN, 20.0)}, 'snr_db=(nan, 20.0): must be finite'),
  ('lstm_fsdd_speakers', {'fold': 6}, 'fold=6 of 6: must be 0 to 5'),
  ('lstm_fsdd_speakers', {'num_folds': 5}, 'fold=0 of 5: must be 0 to 5 of 6'),
  ('lstm_fsdd_speakers', {'shift': -1}, 'shift=-1: must be a whole number of at least 0'),
  ('ctc_fsdd_strings', {'beam_size': 0}, 'beam_size=0: must be at least 1'),
  ('ctc_fsdd_strings', {'frame_stack': 0}, 'frame_stack=0: must be from 1 to 50'),
  ('ctc_fsdd_strings', {'frame_stack': 51}, 'frame_stack=51: must be from 1 to 50'),
  ('ctc_fsdd_strings', {'test_size': 1}, 'test_size=1: must be at least 2'),
  ('ctc_fsdd_strings', {'train_size': 0}, 'train_size=0: must be at least 1'),
  ('ctc_fsdd_strings', {'hidden_size': 0}, 'hidden_size=0: must be a whole number of at least 1'),
  ('ctc_fsdd_strings', {'dropout_rate': 1.0}, 'dropout_rate=1.0: must be'),
  ('ctc_fsdd_strings', {'time_mask': -1}, 'time_mask=-1: must be a whole number of at least 0'),
  ('lstm_etth1', {'series': 'foo'}, "series='foo': is unknown; nearest: ETTh1, ETTh2, elecdemand"),
  ('lstm_etth1', {'model': 'gru'}, "model='gru': must be lstm or dlinear"),
  ('lstm_etth1', {'context': 0}, 'context=0: must be at least 1'),
  ('lstm_etth1', {'horizon': 0}, 'horizon=0: must be a whole number of at least 1'),
  ('lstm_etth1', {'season_length': 0}, 'season_length=0: must be from 1 to 336'),
  ('lstm_etth1', {'season_length': 337}, 'season_length=337: must be from 1 to 336'),
  ('lstm_etth1', {'patch_size': 0}, 'patch_size=0: must be a whole number of at least 1'),
  ('lstm_etth1', {'patch_size': 25}, 'patch_size=25: must divide config.context=336'),
  ('lstm_etth1', {'dropout_rate': 1.0}, 'dropout_rate=1.0: must be'),
  ('lstm_etth1', {'quantiles': (0.5, 0.1)}, 'quantiles=(0.5, 0.1): must increase'),
  ('lstm_etth1', {'quantiles': (NAN,)}, 'quantiles=(nan,): must be finite'),
  ('gru_sp500_volatility', {'context': 0}, 'context=0: must be at least 1'),
  ('gru_sp500_volatility', {'fold': 8}, 'fold=8: must be from 0 to 7'),
  ('gru_sp500_volatility', {'fold': -1}, 'fold=-1: must be from 0 to 7'),
  ('gru_sp500_volatility', {'num_folds': 9}, 'num_folds=9: must be from 1 to 8'),
  ('gru_sp500_volatility', {'hidden_size': 0}, 'hidden_size=0: must be a whole number of at least 1'),
  ('gru_ecg5000', {'frame_size': 0}, 'frame_size=0: must be a whole number of at least 1'),
  ('gru_ecg5000', {'pooling': 'max'}, "pooling='max': is unknown; nearest: "),
  ('gru_ecg5000', {'dropout_rate': 1.0}, 'dropout_rate=1.0: must be'),
  ('gru_ecg5000', {'label_smoothing': 1.0}, 'label_smoothing=1.0: must be'),
  ('gru_ecg5000', {'dataset': 'ecg500'}, "dataset='ecg500': is unknown; nearest: ECG5000"),
  ('gru_ecg5000', {'jitter': -0.1}, 'jitter=-0.1: must be at least 0 and finite'),
  ('gru_ecg5000', {'stretch': 1.0}, 'stretch=1.0: must be at least 0 and less than 1'),
  ('lstm_fcn_forda', {'stride': 0}, 'stride=0: must be a whole number of at least 1'),
  ('lstm_fcn_forda', {'hidden_size': 0}, 'hidden_size=0: must be a whole number of at least 1'),
  ('lstm_fcn_forda', {'channels': ()}, 'channels=(): must have at least one entry'),
  ('lstm_fcn_forda', {'channels': (8, 0, 8)}, 'channels=(8, 0, 8): each must be a whole number of at least 1'),
  ('lstm_fcn_forda', {'kernel_sizes': (8, 5)}, 'kernel_sizes=(8, 5): must be 3, one for each of channels=(32, 64, 32)'),
  ('lstm_fcn_forda', {'kernel_sizes': (8, 5, 0)}, 'kernel_sizes=(8, 5, 0): each must be a whole number of at least 1'),
  ('lstm_fcn_forda', {'recurrent_dropout_rate': 1.0}, 'recurrent_dropout_rate=1.0: must be'),
  ('lstm_fcn_forda', {'dataset': 'Ford'}, "dataset='Ford': is unknown; nearest: FordB, FordA"),
  ('lstm_fcn_forda', {'scale': NAN}, 'scale=nan: must be finite'),
]


def config_of(name, scale=''):
  return importlib.import_module(f'experiments.{name}.config').get_config(scale)


@pytest.mark.parametrize(('name', 'change', 'message'), WRONG)
def test_values_that_no_run_could_use(name, change, message):
  with pytest.raises(ConfigError) as told:
    dataclasses.replace(config_of(name), **change).validate()
  assert str(told.value).startswith(f'config.{message}') and '\n' not in str(told.value)


@pytest.mark.parametrize('name', sorted({name for name, _, _ in WRONG}))
def test_what_is_given_is_taken(name):
  for scale in ('', 'tiny'):
    config_of(name, scale).validate()


@pytest.mark.parametrize(
  ('name', 'change'),
  [
    ('lstm_shakespeare', {'tokenizer': 'bytes', 'vocab_size': 0, 'eval_context': 0}),
    (
      'seq2seq_translation',
      {
        'attention_score': 'dot',
        'encoder_hidden_size': 32,
        'decoder_hidden_size': 64,
        'beam_size': 1,
        'length_penalty': 0.0,
      },
    ),
    ('lstm_etth1', {'model': 'dlinear', 'patch_size': 25, 'quantiles': (), 'season_length': 336}),
    ('gru_sp500_volatility', {'fold': 7}),
    ('ctc_fsdd_strings', {'frame_stack': 50, 'test_size': 2}),
  ],
)
def test_values_at_the_edge_are_taken(name, change):
  dataclasses.replace(config_of(name), **change).validate()
