"""Where files come from, and that nothing but the right bytes is ever used."""

import dataclasses
import gzip
import hashlib
import http.server
import io
import socket
import tarfile
import threading
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from research.data import files
from research.data.files import Archive, Places
from research.data.origins import Debian, FilesUrl, Npm, Pip, Sdist, Url
from research.errors import ConfigError, DataError

CONTENT = {'one': b'the first file' * 50, 'two': b'the second'}
SHA256 = {name: hashlib.sha256(data).hexdigest() for name, data in CONTENT.items()}
NPM = Npm('tiny-data', '1.0.0', 'package/data')


def archive(*origins) -> Archive:
  return Archive('tiny', SHA256, origins or (NPM,))


def tgz(path: Path, content=CONTENT) -> Path:
  """An npm package: one of its files is gzipped, one is not."""
  with tarfile.open(path, 'w:gz') as package:
    for name, data in content.items():
      data, end = (gzip.compress(data), '.gz') if name == 'two' else (data, '')
      entry = tarfile.TarInfo(f'package/data/{name}{end}')
      entry.size = len(data)
      package.addfile(entry, io.BytesIO(data))
  return path


def client(folder: Path, name: str, script: str) -> None:
  """A client program that does as the shell `script` says and notes its arguments."""
  folder.mkdir(exist_ok=True)
  (folder / name).write_text(f'#!/bin/sh\necho "$@" >> {folder}/arguments\n{script}\n')
  (folder / name).chmod(0o755)


@pytest.fixture
def at(tmp_path, monkeypatch) -> Places:
  """Empty places, no clients and no proxy."""
  (tmp_path / 'manual').mkdir()
  (tmp_path / 'bin').mkdir()
  monkeypatch.setenv('PATH', str(tmp_path / 'bin'))
  monkeypatch.setenv('no_proxy', '*')
  return Places(tmp_path / 'cache', tmp_path / 'manual')


@pytest.fixture
def npm(at, tmp_path) -> Path:
  """A registry client that hands out the package at the returned path."""
  package = tgz(tmp_path / 'package.tgz')
  client(tmp_path / 'bin', 'npm', f'/bin/cp {package} tiny-data-1.0.0.tgz')
  return package


def refused(archive: Archive, at: Places) -> str:
  """The one line that the archive cannot be loaded with."""
  with pytest.raises(DataError) as caught:
    files.load(archive, at)
  assert '\n' not in str(caught.value)
  return str(caught.value)


def names(folder: Path) -> list[str]:
  return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def test_environment_names_the_places(monkeypatch):
  for name in ('STRATA_MANUAL_DIR', 'STRATA_CACHE_DIR'):
    monkeypatch.delenv(name, raising=False)
  monkeypatch.setenv('XDG_CACHE_HOME', '/x')
  assert files.places() == Places(Path('/x/strata'), None)
  monkeypatch.setenv('STRATA_MANUAL_DIR', '/m')
  monkeypatch.setenv('STRATA_CACHE_DIR', '/c')
  assert files.places() == Places(Path('/c'), Path('/m'))


def test_a_user_without_a_home_names_the_cache(monkeypatch, nobody):
  monkeypatch.setenv('STRATA_CACHE_DIR', '/c')
  assert files.places().cache == Path('/c')
  monkeypatch.delenv('STRATA_CACHE_DIR')
  monkeypatch.setenv('XDG_CACHE_HOME', '/x')
  assert files.places().cache == Path('/x/strata')
  monkeypatch.delenv('XDG_CACHE_HOME')
  with pytest.raises(ConfigError, match='no home directory to keep a cache in; set .*STRATA_CACHE_DIR'):
    files.places()


def test_fetched_once_by_the_client_then_cached(at, npm, tmp_path):
  assert files.load(archive(), at) == CONTENT
  assert files.load(archive(), at) == CONTENT
  (arguments,) = (tmp_path / 'bin' / 'arguments').read_text().splitlines()
  assert arguments.startswith('pack tiny-data@1.0.0 --ignore-scripts')
  assert names(at.cache / 'tiny') == ['one', 'two']


@pytest.mark.parametrize('damaged', [b'', CONTENT['one'][:-1], b'X' + CONTENT['one'][1:]])
def test_a_damaged_cached_file_is_fetched_again_or_refused(at, npm, tmp_path, damaged, caplog, told, fault):
  files.load(archive(), at)
  (at.cache / 'tiny' / 'one').write_bytes(damaged)
  assert files.load(archive(), at) == CONTENT
  (warning,) = [record.getMessage() for record in caplog.records if record.levelname == 'WARNING']
  if len(damaged) == len(CONTENT['one']):
    fault('a cached data file has changed', warning, 0, 'the right file is fetched again')
  assert (at.cache / 'tiny' / 'one').read_bytes() == CONTENT['one']
  (at.cache / 'tiny' / 'one').write_bytes(damaged)
  (tmp_path / 'bin' / 'npm').unlink()
  assert 'npm is not installed' in refused(archive(), at)


def test_the_manual_directory_comes_first(at, npm, tmp_path):
  files.load(archive(), at)
  (tmp_path / 'bin' / 'npm').unlink()
  tgz(at.manual / 'tiny-data-1.0.0.tgz')
  (at.cache / 'tiny' / 'one').write_bytes(b'wrong, and never looked at')
  assert files.load(archive(), at) == CONTENT


def test_loose_files_of_the_manual_directory_serve_gzipped_or_not(at):
  (at.manual / 'tiny').mkdir()
  (at.manual / 'tiny' / 'one').write_bytes(CONTENT['one'])
  (at.manual / 'tiny' / 'two.gz').write_bytes(gzip.compress(CONTENT['two']))
  assert files.load(archive(), at) == CONTENT


def test_a_wrong_file_of_the_manual_directory_is_named_and_kept(at, npm):
  path = tgz(at.manual / 'tiny-data-1.0.0.tgz', {'one': b'else', 'two': CONTENT['two']})
  message = refused(archive(), at)
  assert str(path) in message and SHA256['one'] in message and path.exists()
  path.write_bytes(path.read_bytes()[:60])
  assert str(path) in refused(archive(), at)
  tgz(path, {'one': CONTENT['one']})
  assert f'{path}: does not contain the file two' in refused(archive(), at)
  path.unlink()
  (at.manual / 'tiny').mkdir()
  loose = at.manual / 'tiny' / 'two.gz'
  loose.write_bytes(gzip.compress(CONTENT['two'])[:-4])
  assert str(loose) in refused(archive(), at)


def test_a_manual_directory_that_is_not_there(at):
  assert 'no such folder' in refused(archive(), dataclasses.replace(at, manual=at.manual / 'x'))


def test_a_wrong_package_is_told_and_nothing_is_kept(at, npm, told, fault):
  tgz(npm, {'one': CONTENT['one'], 'two': b'else'})
  fault('a checksum fails', *told(lambda: files.load(archive(), at)), 'nothing is used or cached')
  message = refused(archive(), at)
  assert SHA256['two'] in message and 'tiny-data-1.0.0.tgz' in message and 'STRATA_MANUAL_DIR' in message
  npm.write_bytes(npm.read_bytes()[:80])
  assert 'damaged archive' in refused(archive(), at)
  assert names(at.cache / 'tiny') == []


def test_a_member_that_leaves_its_folder_is_no_file(at, npm, tmp_path, told, fault):
  """A link is not followed, and a name with `..` is only ever a name."""
  (tmp_path / 'secret').write_bytes(CONTENT['two'])
  with tarfile.open(npm, 'w:gz') as package:
    for name in ('package/data/one', '../../escaped', f'{tmp_path}/escaped'):
      entry = tarfile.TarInfo(name)
      entry.size = len(CONTENT['one'])
      package.addfile(entry, io.BytesIO(CONTENT['one']))
    link = tarfile.TarInfo('package/data/two')
    link.type, link.linkname = tarfile.SYMTYPE, str(tmp_path / 'secret')
    package.addfile(link)
  line, code = told(lambda: files.load(archive(), at))
  assert 'does not contain the file two' in line and names(at.cache / 'tiny') == []
  assert names(tmp_path) == ['bin', 'manual', 'package.tgz', 'secret'] and not (tmp_path.parent / 'escaped').exists()
  fault('an archive member leaves its folder', line, code, 'nothing is written outside, or at all')


def test_clients_that_are_missing_or_fail(at, tmp_path):
  debian = archive(Debian('dataset-tiny', '0.0', 'usr/share'))
  assert 'apt-get is not installed' in refused(debian, at)
  client(tmp_path / 'bin', 'apt-get', 'echo "E: Unable to locate package dataset-tiny" >&2; exit 100')
  assert 'Unable to locate package dataset-tiny (run `apt-get update` first)' in refused(debian, at)
  client(tmp_path / 'bin', 'npm', 'echo "npm ERR! code ENOTFOUND" >&2; echo "npm ERR! more" >&2; exit 1')
  assert 'npm failed: npm ERR! code ENOTFOUND npm ERR! more' in refused(archive(), at)


def test_a_wheel_by_pip(at, tmp_path, monkeypatch):
  with zipfile.ZipFile(tmp_path / 'tiny_data-1.0-py3-none-any.whl', 'w') as wheel:
    for name, data in CONTENT.items():
      wheel.writestr(f'tiny_data/{name}', data)
    wheel.writestr('tiny_data-1.0.dist-info/METADATA', 'Metadata-Version: 2.1\nName: tiny-data\nVersion: 1.0\n')
    wheel.writestr('tiny_data-1.0.dist-info/WHEEL', 'Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n')
    wheel.writestr('tiny_data-1.0.dist-info/RECORD', '')
  monkeypatch.setenv('PIP_NO_INDEX', '1')
  monkeypatch.setenv('PIP_FIND_LINKS', str(tmp_path))
  assert files.load(archive(Pip('tiny-data', '1.0', 'tiny_data')), at) == CONTENT
  assert 'No matching distribution' in refused(Archive('other', SHA256, (Pip('tiny-data', '2.0', 'tiny_data'),)), at)


BACKEND = """
from pathlib import Path
Path({ran!r}).touch()
def prepare_metadata_for_build_wheel(folder, *settings):
  facts = Path(folder) / 'tiny_data-1.0.dist-info'
  facts.mkdir()
  (facts / 'METADATA').write_text('Metadata-Version: 2.1\\nName: tiny-data\\nVersion: 1.0\\n')
  return facts.name
def build_wheel(*arguments): ...
"""


def test_a_source_distribution_is_run_only_if_it_is_the_right_one(at, tmp_path, monkeypatch):
  content = {f'data/{name}': data for name, data in CONTENT.items()}
  content |= {'backend.py': BACKEND.format(ran=str(tmp_path / 'ran')).encode(), 'PKG-INFO': b'Metadata-Version: 1.0\n'}
  content['pyproject.toml'] = b'[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
  with tarfile.open(tmp_path / 'tiny-data-1.0.tar.gz', 'w:gz') as package:
    for name, data in content.items():
      entry = tarfile.TarInfo(f'tiny-data-1.0/{name}')
      entry.size = len(data)
      package.addfile(entry, io.BytesIO(data))
  monkeypatch.setenv('PIP_NO_INDEX', '1')
  monkeypatch.setenv('PIP_FIND_LINKS', str(tmp_path))
  right = hashlib.sha256((tmp_path / 'tiny-data-1.0.tar.gz').read_bytes()).hexdigest()
  wrong = Sdist('tiny-data', '1.0', 'tiny-data-1.0/data', sha256='0' * 64)
  assert 'THESE PACKAGES DO NOT MATCH THE HASHES' in refused(archive(wrong), at) and not (tmp_path / 'ran').exists()
  assert files.load(archive(dataclasses.replace(wrong, sha256=right)), at) == CONTENT and (tmp_path / 'ran').exists()


class Server(http.server.BaseHTTPRequestHandler):
  """Serves CONTENT, gzipped where a name says so; below /cut/ it breaks off half way, below /none/ is nothing."""

  def do_GET(self):
    folder, name = self.path.strip('/').split('/')
    data = gzip.compress(CONTENT[name.removesuffix('.gz')]) if name.endswith('.gz') else CONTENT[name]
    self.send_response(404 if folder == 'none' else 200)
    self.send_header('Content-Length', str(len(data)))
    self.end_headers()
    self.wfile.write(data[: len(data) // 2] if folder == 'cut' else data)

  def log_message(self, *arguments):
    pass


@pytest.fixture(scope='module')
def address():
  with http.server.ThreadingHTTPServer(('127.0.0.1', 0), Server) as server:
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f'http://127.0.0.1:{server.server_port}'
    server.shutdown()


def test_the_canonical_address_is_the_last_resort(at, address):
  assert files.load(archive(NPM, Url(f'{address}/good/')), at) == CONTENT
  assert names(at.cache / 'tiny') == ['one', 'two']


def test_plain_files_at_an_address_or_all_in_a_zip_put_there_by_hand(at, address):
  plain = archive(FilesUrl('tiny', '', '', f'{address}/good/'))
  assert files.load(plain, at) == CONTENT
  with zipfile.ZipFile(at.manual / 'tiny.zip', 'w') as package:
    for name, data in CONTENT.items():
      package.writestr(name, data)
  for name in CONTENT:
    (at.cache / 'tiny' / name).write_bytes(b'wrong, and never looked at')
  assert files.load(archive(FilesUrl('tiny', '', '', f'{address}/none/')), at) == CONTENT
  (at.manual / 'tiny.zip').unlink()
  assert 'tiny.zip or tiny/one' in refused(archive(FilesUrl('tiny', '', '', f'{address}/none/')), at)


@pytest.mark.parametrize('folder, reason', [('cut', 'IncompleteRead'), ('none', 'answered 404')])
def test_a_broken_download_is_told_and_nothing_is_kept(at, address, folder, reason):
  message = refused(archive(Url(f'{address}/{folder}/')), at)
  assert reason in message and f'{address}/{folder}/' in message
  assert names(at.cache / 'tiny') == []


def test_no_network_says_which_folder_to_fill(at):
  with socket.socket() as closed:
    closed.bind(('127.0.0.1', 0))  # bound and not listening: connections are refused
    message = refused(archive(NPM, Url(f'http://127.0.0.1:{closed.getsockname()[1]}/')), at)
  for part in (
    'no network?',
    'npm is not installed',
    'tiny-data-1.0.0.tgz',
    'tiny/one',
    SHA256['one'],
    'STRATA_MANUAL',
  ):
    assert part in message


def test_a_kill_while_writing_leaves_no_file_under_its_name(at, npm, monkeypatch):
  def killed(path, data):
    path.open('wb').write(data[: len(data) // 2])
    raise KeyboardInterrupt

  with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
    patch.setattr(Path, 'write_bytes', killed)
    files.load(archive(), at)
  assert names(at.cache / 'tiny') == []
  assert files.load(archive(), at) == CONTENT


def test_several_may_fetch_at_once(at, npm):
  with ThreadPoolExecutor(6) as pool:
    assert list(pool.map(lambda _: files.load(archive(), at), range(6))) == [CONTENT] * 6
  assert names(at.cache / 'tiny') == ['one', 'two']


def test_a_cache_that_cannot_be_written(at, npm, tmp_path):
  (tmp_path / 'file').write_text('')
  assert 'STRATA_CACHE_DIR' in refused(archive(), dataclasses.replace(at, cache=tmp_path / 'file' / 'cache'))
