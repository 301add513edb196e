"""Updates the tables of results in the READMEs of experiments and of the project.

python -m launch.tables
"""

from launch import app
from research.report import readmes
from research.report.results import recorded


def main() -> None:
  for path in readmes.update(recorded()):
    print(path)


if __name__ == '__main__':
  app.run(main)
