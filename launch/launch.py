"""Makes `python launch/x.py` the same as `python -m launch.x`.

A script's folder comes first on Python's path, so `import launch` finds this file. It replaces that folder by the
project's root, and becomes the package.
"""

import sys
from pathlib import Path

__path__ = [str(Path(__file__).resolve().parent)]
sys.path[0] = str(Path(__file__).resolve().parent.parent)
