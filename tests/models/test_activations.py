"""Activations against their formulas in numpy."""

import numpy as np
import pytest
from scipy.special import erf, expit

from research.errors import ConfigError
from research.models.activations import ACTIVATIONS, activation

SELU_ALPHA, SELU_SCALE = 1.6732632423543772, 1.0507009873554805  # Klambauer et al. 2017
FORMULAS = {
  'identity': lambda x: x,
  'sigmoid': expit,
  'tanh': np.tanh,
  'relu': lambda x: np.maximum(x, 0),
  'leaky_relu': lambda x: np.where(x > 0, x, 0.01 * x),
  'elu': lambda x: np.where(x > 0, x, np.expm1(x)),
  'selu': lambda x: SELU_SCALE * np.where(x > 0, x, SELU_ALPHA * np.expm1(x)),
  'gelu': lambda x: x * (1 + erf(x / np.sqrt(2))) / 2,
  'gelu_tanh': lambda x: x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))) / 2,
  'silu': lambda x: x * expit(x),
  'swish': lambda x: x * expit(x),
  'softplus': lambda x: np.log1p(np.exp(x)),
  'mish': lambda x: x * np.tanh(np.log1p(np.exp(x))),
  'softmax': lambda x: np.exp(x) / np.exp(x).sum(-1, keepdims=True),
}


def test_every_activation_has_a_formula_here():
  assert set(FORMULAS) == set(ACTIVATIONS)


@pytest.mark.parametrize('name', FORMULAS)
def test_formula(x64, name):
  x = np.linspace(-4, 4, 34).reshape(2, 17)
  np.testing.assert_allclose(activation(name)(x), FORMULAS[name](x), rtol=1e-6, atol=1e-9)


def test_unknown_name_is_told_the_nearest():
  with pytest.raises(ConfigError, match=r"'gleu'.*gelu"):
    activation('gleu')
