"""Paths of parameters, by which they are frozen, transferred and shared with other libraries."""

import importlib
import inspect
import pkgutil
import re

import jax
import jax.numpy as jnp
import pytest
from flax import linen as nn

import research.models
from research.models.attention import SelfAttention
from research.models.cnn import ConvNet, LeNet5
from research.models.forecasting import DLinear, LogVariance, PatchRNN
from research.models.frames import Frames
from research.models.language import LanguageModel
from research.models.mlp import MLP
from research.models.resnet import ResNet
from research.models.rnn import RNN, Padded, SequenceClassifier, SequenceLabeler
from research.models.seq2seq import BahdanauDecoder, LuongDecoder, Pair, Seq2Seq
from research.models.temporal import FCN, LSTMFCN, TCN, ResNet1D
from research.models.views import TenViews

IMAGES, SERIES, TOKENS = jnp.zeros((1, 28, 28, 1)), jnp.zeros((1, 24, 2)), jnp.zeros((1, 5), jnp.int32)
SOURCE = Pair(Padded(TOKENS, jnp.array([5])), TOKENS)
BOTH = RNN(3, 2, 'layer_norm_lstm', bidirectional=True)

MODELS = [
  (MLP((4, 4), 2, norm='layer'), SERIES),
  (LeNet5(2), IMAGES),
  (TenViews(ConvNet((2, 2), 2, (4,), convs_per_stage=2, norm='batch')), IMAGES),
  (ResNet((1, 2), 2, width=4, bottleneck=True), IMAGES),
  (ResNet((1, 2), 2, width=4, preactivation=True, norm='group'), IMAGES),
  (Frames(SequenceClassifier(BOTH, 2), 3), SERIES),
  (SequenceLabeler(RNN(3), 2), SERIES),
  (SelfAttention(2), SERIES),
  (FCN(2, (2, 2), (3, 3)), SERIES),
  (LSTMFCN(2, (2, 2), (3, 3), length=24), SERIES),
  (ResNet1D(2, (2, 2), (3, 3)), SERIES),
  (TCN(2, (2, 4)), SERIES),
  (LanguageModel(9, RNN(3), 4), TOKENS),
  (Seq2Seq(9, 4, RNN(3), LuongDecoder(RNN(3))), SOURCE),
  (Seq2Seq(9, 4, RNN(3), BahdanauDecoder(3)), SOURCE),
  (PatchRNN(RNN(3), 4, patch_size=6), SERIES),
  (DLinear(4), SERIES),
  (LogVariance(RNN(3), 0.0), SERIES),
]


def named(model, inputs):
  """(paths of the model's variables, classes of the modules that make them)."""
  num_classes = {type(model)}

  def note(call, args, kwargs, context):
    num_classes.add(type(context.module))
    return call(*args, **kwargs)

  with nn.intercept_methods(note):
    variables = jax.eval_shape(model.init, jax.random.key(0), inputs)
  paths = [jax.tree_util.keystr(path, simple=True, separator='/') for path, _ in jax.tree.leaves_with_path(variables)]
  return paths, num_classes


@pytest.mark.parametrize(('model', 'inputs'), MODELS, ids=[type(model).__name__ for model, _ in MODELS])
def test_no_path_has_a_name_that_linen_made_up(model, inputs):
  paths, _ = named(model, inputs)
  assert paths and [path for path in paths if re.search(r'[A-Z]\w*_\d', path)] == []


def test_every_model_is_looked_at():
  rooms = [
    importlib.import_module(f'research.models.{room.name}') for room in pkgutil.iter_modules(research.models.__path__)
  ]
  num_classes = {cls for room in rooms for _, cls in inspect.getmembers(room, inspect.isclass)}
  own = {cls for cls in num_classes if issubclass(cls, nn.Module) and cls.__module__.startswith('research.models')}
  assert own - set.union(*(named(*pair)[1] for pair in MODELS)) == set()


def test_paths_say_what_a_layer_is():
  assert named(SelfAttention(2), SERIES)[0][:2] == ['params/key/bias', 'params/key/kernel']
  network = named(ResNet((1, 1), 2, width=4), IMAGES)[0]
  assert {'params/stem_conv/kernel', 'params/block_1/shortcut/kernel', 'params/head/bias'} <= set(network)
