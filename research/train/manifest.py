"""Manifests: all files of a folder with size and sha256, written last, so a matching folder is complete."""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

NAME = 'manifest'


class DamagedError(Exception):
  """A folder that does not match its manifest; the message names the file and the fault."""


def write(folder: Path, **facts: Any) -> None:
  """Writes the manifest of `folder`, with `facts` (JSON), and flushes it to disk.

  Two lines: the sha256 of the second, which is JSON. Raises OSError.
  """
  files = {name: [path.stat().st_size, _sha256(path)] for name, path in sorted(_files(folder).items())}
  _dump({**facts, 'files': files}, folder / NAME)
  sync(folder)


def update(folder: Path, temporary: Path, **facts: Any) -> None:
  """Atomically changes facts of a manifest, through the file `temporary`. Raises DamagedError, OSError."""
  _dump({**read(folder), **facts}, temporary)
  temporary.replace(folder / NAME)
  sync(folder)


def read(folder: Path) -> dict[str, Any]:
  """The manifest, verified against its own checksum but not against the files. Raises DamagedError."""
  path = folder / NAME
  if not path.is_file():
    raise DamagedError(f'{path} is missing')
  digest, _, body = path.read_bytes().partition(b'\n')
  if hashlib.sha256(body).hexdigest().encode() != digest:
    raise DamagedError(f'{path} does not match its own sha256')
  return json.loads(body)


def verify(folder: Path) -> dict[str, Any]:
  """The manifest, once all files are verified. Raises DamagedError or OSError."""
  manifest = read(folder)
  found, expected = _files(folder), manifest['files']
  for name in sorted(found.keys() ^ expected.keys()):
    raise DamagedError(f'{folder / name} ' + ('is missing' if name in expected else 'does not belong there'))
  for name, path in found.items():
    _check(path, *expected[name])
  return manifest


def sync(folder: Path) -> None:
  """Flushes the names in `folder` to disk; a rename might otherwise be lost in a power failure."""
  descriptor = os.open(folder, os.O_RDONLY)
  try:
    os.fsync(descriptor)
  finally:
    os.close(descriptor)


def _dump(content: Mapping[str, Any], path: Path) -> None:
  body = json.dumps(content, allow_nan=False).encode()
  with path.open('wb') as file:
    file.write(hashlib.sha256(body).hexdigest().encode() + b'\n' + body)
    file.flush()
    os.fsync(file.fileno())


def _files(folder: Path) -> Mapping[str, Path]:
  files = (path for path in folder.rglob('*') if not path.is_dir())
  return {path.relative_to(folder).as_posix(): path for path in files if path != folder / NAME}


def _sha256(path: Path) -> str:
  with path.open('rb') as file:
    return hashlib.file_digest(file, 'sha256').hexdigest()


def _check(path: Path, size: int, digest: str) -> None:
  if path.stat().st_size != size:
    raise DamagedError(f'{path} has {path.stat().st_size} bytes, not {size}')
  if _sha256(path) != digest:
    raise DamagedError(f'{path} has a different sha256 than when it was saved')
