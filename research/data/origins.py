"""Origins of data files: packages of public registries, or canonical URLs."""

import http.client
import re
import shutil
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Protocol

from research.data import archives
from research.errors import DataError, shortened

_SECONDS = 30  # connection timeout
_MAX_SECONDS = 900  # timeout of a client's download


class Origin(Protocol):
  """A source of files."""

  def fetch(self, names: Collection[str]) -> dict[str, bytes]:
    """Unpacked contents of the files in `names` that it has, not yet verified; raises DataError."""
    ...


@dataclass(frozen=True)
class Url:
  """Individual gzipped files at a URL: `prefix` + name + '.gz'."""

  prefix: str

  def fetch(self, names: Collection[str]) -> dict[str, bytes]:
    return {name: archives.gunzip(_download(self.prefix, f'{name}.gz')) for name in names}

  def __str__(self) -> str:
    return self.prefix


@dataclass(frozen=True)
class Package:
  """A package whose `folder` contains the files, plain or with '.gz' appended."""

  name: str
  version: str
  folder: str

  def command(self) -> list[str]:
    """The client's command that downloads the package to the working directory."""
    raise NotImplementedError

  @property
  def pattern(self) -> str:
    """Glob pattern of the package's filename."""
    raise NotImplementedError

  @property
  def requirements(self) -> str:
    """Content of `requirements.txt`; '' if the client needs none."""
    return ''

  def fetch(self, names: Collection[str]) -> dict[str, bytes]:
    with tempfile.TemporaryDirectory() as folder:
      if self.requirements:
        (Path(folder) / 'requirements.txt').write_text(self.requirements)
      _run(self.command(), folder)
      paths = sorted(Path(folder).glob(self.pattern))
      if not paths:
        raise DataError(f'the client downloaded no file {self.pattern}')
      return self.read(paths[-1], names)

  def read(self, path: Path, names: Collection[str]) -> dict[str, bytes]:
    """Unpacked contents of the files `names` in the package at `path`."""
    member = {str(PurePosixPath(self.folder, name + end)): name for name in names for end in ('', '.gz')}
    return {member[key]: archives.gunzip(data) for key, data in archives.members(path, member).items()}


@dataclass(frozen=True)
class Npm(Package):
  """An npm package; its scripts are not run."""

  def command(self) -> list[str]:
    options = ['--ignore-scripts', '--loglevel=error', '--fetch-retries=1', f'--fetch-timeout={_SECONDS}000']
    return ['npm', 'pack', f'{self.name}@{self.version}', *options]

  @property
  def pattern(self) -> str:
    return f'{self.name.removeprefix("@").replace("/", "-")}-{self.version}.tgz'

  def __str__(self) -> str:
    return f'npm package {self.name}@{self.version}'


@dataclass(frozen=True)
class Debian(Package):
  """A Debian package, any build of `version`; nothing is installed."""

  def command(self) -> list[str]:
    return ['apt-get', 'download', '-q', '-o', 'Acquire::Retries=1', self.name]

  @property
  def pattern(self) -> str:
    return f'{self.name}_{self.version}*.deb'

  def __str__(self) -> str:
    return f'Debian package {self.name}'


@dataclass(frozen=True)
class Pip(Package):
  """A wheel of the Python package index; a source distribution would run code when downloaded."""

  def command(self) -> list[str]:
    options = ['--no-deps', '--only-binary=:all:', '-q', '--retries=1', f'--timeout={_SECONDS}']
    return [sys.executable, '-m', 'pip', 'download', f'{self.name}=={self.version}', *options]

  @property
  def pattern(self) -> str:
    return f'{re.sub("[-_.]", "[-_.]", self.name)}-{self.version}-*.whl'

  def __str__(self) -> str:
    return f'Python package {self.name}=={self.version}'


@dataclass(frozen=True)
class Sdist(Pip):
  """A source distribution of the Python package index.

  pip runs its setup.py to get metadata, so it is pinned by its `sha256`.
  """

  sha256: str

  def command(self) -> list[str]:
    options = ['--no-deps', '--no-binary=:all:', '-q', '--retries=1', f'--timeout={_SECONDS}']
    return [sys.executable, '-m', 'pip', 'download', '--require-hashes', '-r', 'requirements.txt', *options]

  @property
  def requirements(self) -> str:
    return f'{self.name}=={self.version} --hash=sha256:{self.sha256}\n'

  @property
  def pattern(self) -> str:
    return f'{re.sub("[-_.]", "[-_.]", self.name)}-{self.version}.tar.gz'


@dataclass(frozen=True)
class ZipUrl(Package):
  """A zip archive at a URL, or `name`.zip in the manual directory."""

  address: str

  def fetch(self, names: Collection[str]) -> dict[str, bytes]:
    with tempfile.TemporaryDirectory() as folder:
      path = Path(folder) / self.pattern
      path.write_bytes(_download(*self.address.rpartition('/')[::2]))
      return self.read(path, names)

  @property
  def pattern(self) -> str:
    return f'{self.name}.zip'

  def __str__(self) -> str:
    return self.address


@dataclass(frozen=True)
class FilesUrl(ZipUrl):
  """Individual files at a URL, `address` + name; or all of them in `name`.zip in the manual directory."""

  def fetch(self, names: Collection[str]) -> dict[str, bytes]:
    return {name: _download(self.address, name) for name in names}


def _run(command: list[str], folder: str) -> None:
  client = Path(command[0]).name
  if not shutil.which(command[0]):
    raise DataError(f'{client} is not installed')
  try:
    result = subprocess.run(
      command, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_MAX_SECONDS
    )
  except subprocess.TimeoutExpired as error:
    raise DataError(f'{client} timed out after {_MAX_SECONDS} s') from error
  if result.returncode:
    hint = ' (run `apt-get update` first)' if 'Unable to locate' in result.stderr else ''
    raise DataError(f'{client} failed: {shortened(result.stderr)}{hint}')


def _download(prefix: str, name: str) -> bytes:
  try:
    with urllib.request.urlopen(prefix + name, timeout=_SECONDS) as response:
      return response.read()
  except urllib.error.HTTPError as error:
    raise DataError(f'{name}: answered {error.code} {error.reason}') from error
  except (OSError, http.client.HTTPException) as error:
    raise DataError(f'{name}: no network? {getattr(error, "reason", "") or error!r}') from error
