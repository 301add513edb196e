"""Outputs of a model in a file."""

import numpy as np

from research.evaluate.predictions import saved_to


def test_outputs_that_are_a_tree_are_kept_as_arrays(tmp_path):
  """Numpy would pickle the tree as a whole."""
  outputs = {'labels': np.arange(6).reshape(3, 2), 'score': np.ones(3, np.float32)}
  rows = {'inputs': np.zeros(3), 'targets': np.arange(3), 'index': np.array([0, 2, 5])}
  list(saved_to(tmp_path / 'out.npz')(outputs, rows))
  with np.load(tmp_path / 'out.npz') as kept:
    assert sorted(kept) == ['index', 'outputs_labels', 'outputs_score', 'targets']
    np.testing.assert_array_equal(kept['outputs_labels'], outputs['labels'])
    assert kept['index'].tolist() == [0, 2, 5]
