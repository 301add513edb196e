"""Lists the commands: `python -m launch`."""

import ast
from pathlib import Path


def commands() -> dict[str, str]:
  """The first line of each command's docstring, by its name; read without importing it, to avoid importing JAX."""
  texts = {path.stem: path.read_text('utf-8') for path in sorted(Path(__file__).parent.glob('[!_]*.py'))}
  return {
    f'launch.{name}': ast.get_docstring(ast.parse(text)).partition('\n')[0]
    for name, text in texts.items()
    if "__name__ == '__main__'" in text
  }


def main() -> None:
  found = commands()
  width = max(map(len, found))
  print('python -m COMMAND --help shows the flags of a command.\n')
  for name, line in found.items():
    print(f'{name:{width}}  {line}')


if __name__ == '__main__':
  main()
