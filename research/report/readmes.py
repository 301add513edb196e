"""The READMEs of experiments and of the project, with their tables of results up to date."""

import re
from pathlib import Path

from research.paths import ROOT
from research.report import results
from research.report.results import recorded
from research.report.tables import Entry, experiment_table, fill, overview_table
from research.train.modules import import_file


def entry_of(folder: Path) -> Entry:
  """An experiment with its records; its description is the start of its config's docstring."""
  module = import_file(folder / 'config.py')
  what = re.split('[.:]', module.__doc__)[0]
  return Entry(folder.name, what, module.TARGETS, results.read(folder / 'results.jsonl'))


def updated(folders: list[Path]) -> dict[Path, str]:
  """The updated text of each README, by path; unchanged without markers."""
  entries = {folder / 'README.md': entry_of(folder) for folder in folders}
  tables = {path: experiment_table(entry.records, entry.targets) for path, entry in entries.items()}
  if set(folders) & set(listed := recorded()):  # other folders are not part of the project
    tables[ROOT / 'README.md'] = overview_table([entry_of(folder) for folder in listed])
  return {path: fill(path.read_text(), table) for path, table in tables.items() if path.exists()}


def update(folders: list[Path]) -> list[Path]:
  """Atomically rewrites the READMEs of experiments and of the project; returns their paths."""
  texts = updated(folders)
  for path, text in texts.items():
    temporary = path.with_name(path.name + '.tmp')
    temporary.write_text(text)
    temporary.replace(path)
  return list(texts)
