"""Makes `python launch/x.py` the same as `python -m launch.x`.

A script's own folder comes first on Python's path, so there `import launch` finds this file. It puts the root of
the project in that folder's place, and then is the package.
"""

import sys
from pathlib import Path

__path__ = [str(Path(__file__).resolve().parent)]
sys.path[0] = str(Path(__file__).resolve().parent.parent)
