"""The learning curves of a run, drawn into its workdir."""

from pathlib import Path

from research.errors import naming
from research.evaluate import figures
from research.train import recorder


def draw_curves(workdir: Path) -> None:
  """Draws figures/learning_curves.png of what metrics.jsonl holds, if there is anything yet."""
  records, folder = recorder.read(workdir), workdir / 'figures'
  if any(name.startswith('train/') for record in records for name in record):
    folder.mkdir(exist_ok=True)
    with naming(folder):
      figures.learning_curves(records).savefig(folder / 'learning_curves.png')
