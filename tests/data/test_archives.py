"""Archives and IDX data made by hand, byte by byte where that matters."""

import gzip
import io
import struct
import tarfile
import zipfile

import numpy as np
import pytest

from research.data import archives
from research.errors import DataError


def tar(entries: dict[str, bytes], mode: str = 'w:gz', link: str = '') -> bytes:
  buffer = io.BytesIO()
  with tarfile.open(fileobj=buffer, mode=mode) as archive:
    for name, data in entries.items():
      entry = tarfile.TarInfo(name)
      entry.size = len(data)
      archive.addfile(entry, io.BytesIO(data))
    if link:
      entry = tarfile.TarInfo('link')
      entry.type, entry.linkname = tarfile.SYMTYPE, link
      archive.addfile(entry)
  return buffer.getvalue()


def deb(data: bytes, name: str = 'data.tar.xz') -> bytes:
  parts = {'debian-binary': b'2.0', 'control.tar.gz': b'abc', name: data}
  packed = b'!<arch>\n'
  for part, content in parts.items():
    packed += f'{part:<16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(content):<10}`\n'.encode()
    packed += content + b'\n' * (len(content) % 2)
  return packed


def packed(kind: str, entries: dict[str, bytes]) -> bytes:
  if kind == 'zip':
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, 'w', zipfile.ZIP_DEFLATED) as archive:
      for name, data in entries.items():
        archive.writestr(name, data)
    return buffer.getvalue()
  return deb(tar(entries, 'w:xz')) if kind == 'deb' else tar(entries)


@pytest.mark.parametrize('kind', ['tgz', 'deb', 'zip'])
def test_members_are_those_of_the_exact_names(tmp_path, kind):
  path = tmp_path / f'a.{kind}'
  path.write_bytes(packed(kind, {'data/one': b'1' * 99, 'data/one.txt': b'2', 'one': b'3', 'data/two': b''}))
  assert archives.members(path, ['data/one', 'data/two', 'none']) == {'data/one': b'1' * 99, 'data/two': b''}


@pytest.mark.parametrize('message', ['File is not a zip file', ''])
def test_a_damaged_archive_says_what_python_did_or_else_the_kind_of_error(tmp_path, monkeypatch, message):
  def refuse(path):
    raise EOFError(message)

  monkeypatch.setattr(zipfile, 'ZipFile', refuse)
  with pytest.raises(DataError, match=f'damaged archive: {message or "EOFError"}$'):
    archives.members(tmp_path / 'a.zip', ['one'])


def test_a_member_of_a_package_may_be_the_last_and_empty(tmp_path):
  path = tmp_path / 'a.deb'
  path.write_bytes(deb(b'odd'))
  assert archives._deb_data(path) == b'odd'  # without what fills up to an even offset
  path.write_bytes(deb(b''))
  with pytest.raises(DataError, match='damaged archive: '):  # found, and no archive
    archives.members(path, ['one'])
  path.write_bytes(deb(tar({'one': b'1'}, 'w:xz'))[: 8 + 60 + 4 + 60 + 4])  # ends before its data
  with pytest.raises(DataError, match='no data.tar in the Debian package'):
    archives.members(path, ['one'])


@pytest.mark.parametrize('kind', ['tgz', 'deb', 'zip'])
def test_a_truncated_archive_is_a_data_error(tmp_path, kind):
  path = tmp_path / f'a.{kind}'
  whole = packed(kind, {'one': np.random.default_rng(0).bytes(50_000)})
  for length in (0, 7, 100, len(whole) // 2):
    path.write_bytes(whole[:length])
    with pytest.raises(DataError):
      archives.members(path, ['one'])


def test_a_member_outside_its_folder_is_written_nowhere(tmp_path):
  folder = tmp_path / 'deep' / 'down'
  folder.mkdir(parents=True)
  path = folder / 'a.tgz'
  path.write_bytes(tar({'../../escaped': b'x', '/absolute_escaped': b'y', 'good': b'z'}, link='../../secret'))
  (tmp_path / 'secret').write_text('secret')
  found = archives.members(path, ['../../escaped', 'good', 'link'])
  assert found == {'../../escaped': b'x', 'good': b'z'}, 'links must not be followed'
  assert sorted(p.name for p in tmp_path.rglob('*')) == ['a.tgz', 'deep', 'down', 'secret']


def test_a_deb_packed_with_zstd_asks_for_its_client(tmp_path, monkeypatch):
  path = tmp_path / 'a.deb'
  path.write_bytes(deb(b'zstd', 'data.tar.zst'))
  monkeypatch.setenv('PATH', str(tmp_path))
  with pytest.raises(DataError, match='install dpkg-deb'):
    archives.members(path, ['one'])


def test_gunzip():
  assert archives.gunzip(gzip.compress(b'abc')) == b'abc'
  assert archives.gunzip(b'abc') == b'abc'
  with pytest.raises(DataError):
    archives.gunzip(gzip.compress(b'abc' * 100)[:-9])


def test_idx_reads_bytes_and_big_endian_numbers():
  header = bytes([0, 0, 8, 3]) + struct.pack('>3I', 2, 1, 3)
  np.testing.assert_array_equal(archives.idx(header + bytes(range(250, 256))), [[[250, 251, 252]], [[253, 254, 255]]])
  shorts = archives.idx(bytes([0, 0, 0x0B, 1]) + struct.pack('>I2h', 2, -2, 300))
  assert shorts.dtype == np.int16 and shorts.dtype.isnative
  np.testing.assert_array_equal(shorts, [-2, 300])


def test_idx_of_one_number_and_of_none():
  assert archives.idx(b'\0\0\x08\0\x07') == 7
  assert archives.idx(b'\0\0\x08\x01\0\0\0\0').shape == (0,)


@pytest.mark.parametrize(
  ('data', 'message'),
  [
    (b'', 'starts with nothing'),
    (b'\0\0\x08', 'starts with 000008$'),
    (b'\x01\0\x08\x01\0\0\0\x01\0', 'starts with 01000801$'),
    (b'\0\0\x07\x01\0\0\0\x01\0', 'starts with 00000701$'),  # no type
    (b'\0\0\x08\0', r'shape \(\) needs 5 bytes, but the file has 4'),
    (b'\0\0\x08\x02\0\0\0\x01', 'header truncated after 8 of 12 bytes'),
    (b'\0\0\x08\x01\0\0\0\x02\0', r'shape \(2,\) needs 10 bytes, but the file has 9'),
    (b'\0\0\x08\x01\0\0\0\x02\0\0\0', 'needs 10 bytes, but the file has 11'),
    (b'\0\0\x08\x02\xff\xff\xff\xff\xff\xff\xff\xff\0', 'the file has 13'),  # a size beyond 64 bits
  ],
)
def test_idx_refuses(data, message):
  with pytest.raises(DataError, match=message):
    archives.idx(data)
