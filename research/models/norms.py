"""Normalisation layers by the names the field gives them."""

from collections.abc import Callable

from flax import linen as nn
from jax import Array

from research.errors import ConfigError


def norm(
  kind: str,
  channels: int,
  train: bool,
  axis_name: str = '',
  scale_init: nn.initializers.Initializer = nn.initializers.ones,
) -> Callable[[Array], Array]:
  """A layer that normalises `channels` features: `kind` is 'batch', 'layer', 'group', or '' for none.

  'batch' uses the statistics of the batch in training and their running mean in evaluation (Ioffe and Szegedy
  2015), which under pmap spans the devices of `axis_name`; 'group' takes groups of 16 channels (Wu and He 2018).
  Raises ConfigError for another kind.
  """
  match kind:
    case '':
      return lambda x: x
    case 'batch':
      return nn.BatchNorm(not train, momentum=0.9, epsilon=1e-5, scale_init=scale_init, axis_name=axis_name or None)
    case 'layer':
      return nn.LayerNorm(scale_init=scale_init)
    case 'group':
      return nn.GroupNorm(None, group_size=min(16, channels), epsilon=1e-5, scale_init=scale_init)
  raise ConfigError(f"norm: {kind!r} is none of 'batch', 'layer', 'group' and '' (off)")
