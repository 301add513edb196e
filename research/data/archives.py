"""Members of package archives, read into memory: nothing is extracted to disk, nothing is unpickled."""

import gzip
import io
import lzma
import shutil
import struct
import subprocess
import tarfile
import zipfile
import zlib
from collections.abc import Collection
from pathlib import Path

import numpy as np

from research.errors import DataError

_DAMAGE = (
  tarfile.TarError,
  zipfile.BadZipFile,
  zlib.error,
  lzma.LZMAError,
  EOFError,
  OSError,
  ValueError,
  RuntimeError,
)
_IDX_TYPES = {0x08: '>u1', 0x09: '>i1', 0x0B: '>i2', 0x0C: '>i4', 0x0D: '>f4', 0x0E: '>f8'}


def members(path: Path, names: Collection[str]) -> dict[str, bytes]:
  """Contents of the members `names` of a .zip, .whl, .tar.*, .tgz or .deb archive.

  Names are those listed by the archive, without a leading './'. Links and folders are ignored.

  Raises:
    DataError: the archive is damaged or of an unknown kind; the caller names the path.
  """
  try:
    if path.suffix in ('.zip', '.whl'):
      return _zip_members(path, names)
    if path.suffix == '.deb':
      return _tar_members(_deb_data(path), names)
    return _tar_members(path.read_bytes(), names)
  except _DAMAGE as error:
    raise DataError(f'damaged archive: {str(error) or type(error).__name__}') from error


def _zip_members(path: Path, names: Collection[str]) -> dict[str, bytes]:
  with zipfile.ZipFile(path) as archive:
    return {name: archive.read(name) for name in archive.namelist() if name in names}


def _tar_members(data: bytes, names: Collection[str]) -> dict[str, bytes]:
  with tarfile.open(fileobj=io.BytesIO(data)) as archive:
    files = {entry.name.removeprefix('./'): entry for entry in archive if entry.isreg()}
    return {name: archive.extractfile(files[name]).read() for name in names if name in files}


def _deb_data(path: Path) -> bytes:
  """The data.tar.* of a Debian package: an `ar` archive with headers of 60 bytes and even offsets."""
  data = path.read_bytes()
  if not data.startswith(b'!<arch>\n'):
    raise DataError('not a Debian package')
  start = 8
  while start + 60 <= len(data):
    name = data[start : start + 16].decode('ascii', 'replace').rstrip(' /')
    content = data[start + 60 : start + 60 + int(data[start + 48 : start + 58])]
    if name == 'data.tar.zst':
      return _deb_by_client(path)
    if name.startswith('data.tar'):
      return content
    start += 60 + len(content) + len(content) % 2
  raise DataError('damaged archive: no data.tar in the Debian package')


def _deb_by_client(path: Path) -> bytes:
  if not shutil.which('dpkg-deb'):
    raise DataError('packed with zstd: install dpkg-deb to read it')
  result = subprocess.run(['dpkg-deb', '--fsys-tarfile', path], capture_output=True, check=False)
  if result.returncode:
    raise DataError(f'damaged archive: {result.stderr.decode(errors="replace").strip()}')
  return result.stdout


def gunzip(data: bytes) -> bytes:
  """The content of gzip `data`; other data is returned unchanged. Raises DataError if it is damaged."""
  if not data.startswith(b'\x1f\x8b'):
    return data
  try:
    return gzip.decompress(data)
  except _DAMAGE as error:
    raise DataError(f'damaged gzip data: {error}') from error


def idx(data: bytes) -> np.ndarray:
  """Array of the IDX format: two zero bytes, a type, a rank, the big-endian sizes, then the entries.

  Source: LeCun, Cortes and Burges (1998), 'The MNIST database of handwritten digits'.

  Raises:
    DataError: the magic number, type or length violates the format.
  """
  if len(data) < 4 or data[:2] != b'\0\0' or data[2] not in _IDX_TYPES:
    raise DataError(f'not IDX data: starts with {data[:4].hex() or "nothing"}')
  dtype, start = np.dtype(_IDX_TYPES[data[2]]), 4 + 4 * data[3]
  if len(data) < start:
    raise DataError(f'IDX header truncated after {len(data)} of {start} bytes')
  shape = struct.unpack(f'>{data[3]}I', data[4:start])
  length = start + int(np.prod(shape, dtype=object)) * dtype.itemsize
  if len(data) != length:
    raise DataError(f'IDX array of shape {shape} needs {length} bytes, but the file has {len(data)}')
  return np.frombuffer(data, dtype, offset=start).reshape(shape).astype(dtype.newbyteorder('='), copy=False)
