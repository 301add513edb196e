"""Ten views: what they are, and that their average is what is evaluated."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from research.errors import ConfigError
from research.models.views import TenViews


class Corner(nn.Module):
  """Logits that tell the first pixel apart: neither shifts nor mirrors leave it alone."""

  @nn.compact
  def __call__(self, inputs, train=False):
    return nn.Dense(3, kernel_init=nn.initializers.ones)(inputs[:, 0, 0, :]) * jnp.arange(3.0).reshape(1, 3)


IMAGES = jax.random.normal(jax.random.key(0), (2, 4, 5, 1))


def test_views_are_the_shifted_and_mirrored_images():
  views = [np.asarray(view)[0, :, :, 0] for view in TenViews(Corner()).views(IMAGES)]
  image = np.asarray(IMAGES)[0, :, :, 0]
  np.testing.assert_array_equal(views[0], image)
  np.testing.assert_array_equal(views[1][1:], image[:-1])  # down
  np.testing.assert_array_equal(views[2][:-1], image[1:])  # up
  np.testing.assert_array_equal(views[3][:, 1:], image[:, :-1])  # right
  np.testing.assert_array_equal(views[4][:, :-1], image[:, 1:])  # left
  for view, mirrored in zip(views[:5], views[5:], strict=True):
    np.testing.assert_array_equal(mirrored, view[:, ::-1])


@pytest.mark.parametrize('pixels', [-1, 4])
def test_moves_out_of_the_image_are_refused(pixels):
  with pytest.raises(ConfigError, match=f'pixels={pixels}: must be a whole number'):
    TenViews(Corner(), pixels).views(IMAGES)


def test_evaluation_averages_log_probabilities_and_training_does_not():
  model = TenViews(Corner())
  variables = model.init(jax.random.key(1), IMAGES)
  alone = {'params': variables['params']['model']}
  each = [jax.nn.log_softmax(Corner().apply(alone, view)) for view in model.views(IMAGES)]
  np.testing.assert_allclose(model.apply(variables, IMAGES), sum(each) / 10, rtol=1e-6)
  np.testing.assert_array_equal(model.apply(variables, IMAGES, train=True), Corner().apply(alone, IMAGES))
