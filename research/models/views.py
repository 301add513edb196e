"""Evaluation on several views of an image."""

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Float, Num

from research.errors import check_count


class TenViews(nn.Module):
  """A classifier that averages log-probabilities over ten views of each image in evaluation.

  The views are the image and its shifts by `pixels` up, down, left and right, and their mirror images (Krizhevsky,
  Sutskever and Hinton 2012, section 4.1, with shifts instead of crops). Training uses `model` alone.
  Raises ConfigError for a negative shift, or one of at least the image's size.
  """

  model: nn.Module
  pixels: int = 1

  def __post_init__(self):
    check_count('pixels', self.pixels, at_least=0)
    super().__post_init__()

  def __call__(
    self, inputs: Num[ArrayLike, 'batch height width channels'], train: bool = False
  ) -> Float[Array, 'batch classes']:
    if train:
      return self.model(inputs, train)
    views = self.views(jnp.asarray(inputs))
    log_probabilities = jax.nn.log_softmax(self.model(jnp.concatenate(views), train))
    return log_probabilities.reshape(len(views), inputs.shape[0], -1).mean(0)

  def views(self, images: Array) -> list[Array]:
    """Ten arrays like `images` [batch, height, width, channels]; the margins are reflected."""
    p, (height, width) = self.pixels, images.shape[1:3]
    check_count('pixels', p, at_least=0, at_most=min(height, width) - 1)
    padded = jnp.pad(images, ((0, 0), (p, p), (p, p), (0, 0)), mode='reflect')
    corners = [(p, p), (0, p), (2 * p, p), (p, 0), (p, 2 * p)]
    moved = [padded[:, row : row + height, column : column + width] for row, column in corners]
    return [*moved, *(view[:, :, ::-1] for view in moved)]
