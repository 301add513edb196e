"""Multi-layer perceptron."""

from collections.abc import Sequence

from flax import linen as nn
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Float, Num

from research.errors import check_choice, check_counts, check_each, check_range
from research.models.activations import ACTIVATIONS, activation
from research.models.norms import NORMS, norm
from research.models.remat import remat
from research.ops.layers import Dense


class MLP(nn.Module):
  """Fully connected layers: linear, norm, activation, dropout.

  Inputs are flattened. Raises ConfigError for an unknown activation or norm, a size below 1, or a dropout rate that is
  not below 1.
  """

  hidden_sizes: Sequence[int]  # of the hidden layers
  num_outputs: int
  activation: str = 'relu'
  dropout_rate: float = 0.0  # of the hidden units
  norm: str = ''  # 'batch', 'layer' or ''
  residual: bool = False  # adds a layer's input to its output if the sizes match
  output_activation: str = 'identity'  # activation of the outputs: 'softmax' gives probabilities instead of logits
  axis_name: str = ''  # mapped axis (pmap) over which batch norm averages its statistics
  remat: str = ''  # rematerialization policy of the hidden layers; see remat.py

  def __post_init__(self):
    check_counts(num_outputs=self.num_outputs)
    check_each(hidden_sizes=self.hidden_sizes)
    check_range('dropout_rate', self.dropout_rate, below=1)
    check_choice('activation', self.activation, ACTIVATIONS)
    check_choice('output_activation', self.output_activation, ACTIVATIONS)
    check_choice('norm', self.norm, NORMS)
    super().__post_init__()

  @nn.compact
  def __call__(self, inputs: Num[ArrayLike, 'batch ...'], train: bool = False) -> Float[Array, 'batch outputs']:
    x, layer = inputs.reshape(inputs.shape[0], -1), remat(MLP.layer, self.remat)
    for number, width in enumerate(self.hidden_sizes):
      x = layer(self, x, number, width, train)
    return activation(self.output_activation)(Dense(self.num_outputs, name='head')(x))

  def layer(self, x: Num[ArrayLike, 'batch _'], number: int, width: int, train: bool) -> Float[Array, 'batch _']:
    y = Dense(width, use_bias=not self.norm, name=f'dense_{number}')(x)
    y = activation(self.activation)(norm(self.norm, width, train, f'norm_{number}', self.axis_name)(y))
    y = nn.Dropout(self.dropout_rate)(y, deterministic=not train)
    return x + y if self.residual and x.shape == y.shape else y
