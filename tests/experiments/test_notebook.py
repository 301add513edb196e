"""The notebook runs from top to bottom at the tiny scale."""

from pathlib import Path

import nbformat
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parents[2]


def test_explore_runs_and_draws(mnist_is_here):
  notebook = nbformat.read(ROOT / 'experiments/cnn_mnist/explore.ipynb', as_version=4)
  scales = [cell for cell in notebook.cells if cell.source.startswith("scale = ''")]
  assert len(scales) == 1
  scales[0].source = scales[0].source.replace("''", "'tiny'", 1)
  NotebookClient(notebook, timeout=120, resources={'metadata': {'path': str(ROOT)}}).execute()
  pictures = [
    output
    for cell in notebook.cells
    if cell.cell_type == 'code'
    for output in cell.outputs
    if 'image/png' in output.get('data', {})
  ]
  assert len(pictures) == 4
