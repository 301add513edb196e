"""The learning curves of a run, drawn into its workdir."""

from pathlib import Path

from research.evaluate import figures
from research.train import recorder


def draw_curves(workdir: Path) -> None:
  """Draws figures/learning_curves.png of what metrics.jsonl holds."""
  folder = workdir / 'figures'
  folder.mkdir(exist_ok=True)
  figures.learning_curves(recorder.read(workdir)).savefig(folder / 'learning_curves.png')
