"""Verified data files: from the manual directory, the cache or their origins, in this order.

Wherever a file comes from, the sha256 of its unpacked content is verified before it is read.
Both directories have a folder per dataset: `mnist/train-images-idx3-ubyte`.
"""

import contextlib
import hashlib
import os
import uuid
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from absl import logging

from research.data import archives
from research.data.origins import Origin, Package
from research.errors import DataError
from research.paths import local, user_cache


@dataclass(frozen=True)
class Places:
  """Local directories with data files."""

  cache: Path  # of downloaded files
  manual: Path | None = None  # of files provided by hand, for machines without a network


def places() -> Places:
  """The places given by environment variables, which are read only here.

  STRATA_MANUAL_DIR: the manual directory; none if unset.
  STRATA_CACHE_DIR: the cache; by default `strata` in XDG_CACHE_HOME, the user's cache folder.
  """
  cache, manual = (os.environ.get(name) for name in ('STRATA_CACHE_DIR', 'STRATA_MANUAL_DIR'))
  return Places(
    local(cache, 'STRATA_CACHE_DIR') if cache else user_cache(), local(manual, 'STRATA_MANUAL_DIR') if manual else None
  )


@dataclass(frozen=True)
class Archive:
  """The files of a dataset."""

  name: str
  sha256: Mapping[str, str]  # of every unpacked file by name (a gzip header contains a date)
  origins: tuple[Origin, ...]  # tried in turn

  def checked(self, content: Mapping[str, bytes], names: Collection[str]) -> dict[str, bytes]:
    """The files `names` of `content`; raises DataError unless all are present and verified."""
    for name in names:
      if name not in content:
        raise DataError(f'does not contain the file {name}')
      found = hashlib.sha256(content[name]).hexdigest()
      if found != self.sha256[name]:
        raise DataError(f'{name} of {len(content[name])} bytes has sha256 {found}, not {self.sha256[name]}')
    return {name: content[name] for name in names}


def load(archive: Archive, at: Places | None = None) -> dict[str, bytes]:
  """Verified contents of the archive's files by name; `at` defaults to `places()`.

  Raises:
    DataError: a wrong file in the manual directory, or no origin with the right files.
  """
  at = at or places()
  found = _from_manual(archive, at.manual) if at.manual else {}
  found |= _from_cache(archive, at.cache / archive.name, archive.sha256.keys() - found)
  if missing := archive.sha256.keys() - found:
    fetched = _from_origins(archive, sorted(missing))
    for name, data in fetched.items():
      _keep(at.cache / archive.name / name, data)
    found |= fetched
  return {name: found[name] for name in archive.sha256}


def _from_manual(archive: Archive, folder: Path) -> dict[str, bytes]:
  """Verified files of the manual directory; a wrong one is an error for the user to fix."""
  if not folder.is_dir():
    raise DataError(f'{folder}: no such folder: create it or unset STRATA_MANUAL_DIR')
  found = {}
  for package in _packages(archive):
    for path in sorted(folder.glob(package.pattern)):
      with _naming(path):
        found |= archive.checked(package.read(path, archive.sha256), archive.sha256)
  for name in archive.sha256:
    for path in (folder / archive.name / name, folder / archive.name / f'{name}.gz'):
      if path.exists():
        with _naming(path):
          found |= archive.checked({name: archives.gunzip(path.read_bytes())}, [name])
  return found


@contextlib.contextmanager
def _naming(path: Path) -> Iterator[None]:
  try:
    yield
  except (OSError, DataError) as error:
    raise DataError(f'{path}: {error}: put the right file there or remove this one') from error


def _from_cache(archive: Archive, folder: Path, names: Collection[str]) -> dict[str, bytes]:
  """Verified files of the cache; a wrong one counts as missing and is downloaded again."""
  found = {}
  for name in names:
    try:
      found |= archive.checked({name: (folder / name).read_bytes()}, [name])
    except FileNotFoundError:
      continue
    except (OSError, DataError) as error:
      logging.warning('%s: %s: downloading it again', folder / name, error)
  return found


def _from_origins(archive: Archive, names: list[str]) -> dict[str, bytes]:
  faults = []
  for origin in archive.origins:
    logging.info('downloading %s: %s', archive.name, origin)
    try:
      return archive.checked(origin.fetch(names), names)
    except DataError as error:
      faults.append(f'{origin}: {error}')
  raise DataError(f'{archive.name}: cannot be fetched: {"; ".join(faults)}. {_advice(archive, names)}')


def _advice(archive: Archive, names: list[str]) -> str:
  """What to do without a network: the names, places and checksums of the files needed."""
  packages = [package.pattern for package in _packages(archive)]
  loose = ', '.join(f'{archive.name}/{name} (sha256 {archive.sha256[name]})' for name in names)
  return f'Put {" or ".join([*packages, loose])} into a folder and set STRATA_MANUAL_DIR to it'


def _packages(archive: Archive) -> list[Package]:
  return [origin for origin in archive.origins if isinstance(origin, Package)]


def _keep(path: Path, data: bytes) -> None:
  """Writes a verified file atomically, through a temporary name."""
  temporary = path.with_name(f'.{path.name}.{uuid.uuid4().hex}')
  try:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary.write_bytes(data)
    temporary.replace(path)
  except OSError as error:
    raise DataError(f'{path}: cannot be written ({error}): set STRATA_CACHE_DIR to another folder') from error
  finally:
    with contextlib.suppress(OSError):
      temporary.unlink(missing_ok=True)
