"""Compares runs: their curves in one figure, and a table of how their configs and validation metrics differ.

python -m launch.compare runs/digits runs/wider --output=comparison.png
"""

import functools

from absl import flags

from launch import app
from launch.flags import PathParser, parse
from research.errors import ConfigError, naming
from research.paths import local
from research.report.compare import compared_curves, differences_table, read_runs

OUTPUT = flags.DEFINE(PathParser(), 'output', 'comparison.png', 'file of the figure, .png, .svg or .pdf')
PARSER = functools.partial(parse, words=True)


def main(*workdirs: str) -> None:
  if len(workdirs) < 2:
    raise ConfigError('give the workdirs of two runs or more, such as: python -m launch.compare runs/a runs/b')
  if OUTPUT.value.suffix not in ('.png', '.svg', '.pdf'):
    raise ConfigError(f'--output={OUTPUT.value}: must end in .png, .svg or .pdf')
  runs = read_runs([local(workdir, 'RUN') for workdir in workdirs])
  print(differences_table(runs))
  figure = compared_curves(runs)
  figure.suptitle(' and '.join(runs) if len(runs) == 2 else f'{len(runs)} runs', fontsize=10)
  with naming(OUTPUT.value):
    OUTPUT.value.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(OUTPUT.value)
  print(OUTPUT.value)


if __name__ == '__main__':
  app.run(main, PARSER)
