"""Paths that a user names: absolute, with a home in place of ~, and on this machine."""

import os
from pathlib import Path

import pytest

from research.errors import ConfigError
from research.paths import local, user_cache


def test_a_path_stays_the_same_where_the_current_folder_changes(tmp_path, monkeypatch):
  (tmp_path / 'other').mkdir()
  monkeypatch.chdir(tmp_path)
  path = local('runs/x')
  monkeypatch.chdir('other')
  assert (
    path == tmp_path / 'runs' / 'x'
    and local(path) == path
    and local(os.fspath(path)) == local(os.fsencode(path)) == path
  )


def test_a_home_is_expanded(monkeypatch):
  monkeypatch.setenv('HOME', '/home/me')
  monkeypatch.delenv('XDG_CACHE_HOME', raising=False)
  assert local('~/x') == Path('/home/me/x') and user_cache() == Path('/home/me/.cache/strata')
  monkeypatch.setenv('XDG_CACHE_HOME', '~/caches')
  assert user_cache() == Path('/home/me/caches/strata')


@pytest.mark.parametrize('path', ['gs://b/x', 's3://b/x', 'hdfs://host/x', Path('gs://b/x')])
def test_the_address_of_a_bucket_is_no_folder(path):
  with pytest.raises(ConfigError, match='^workdir=.*b|host/x: is an address .* mount the bucket'):
    local(path, 'workdir')
  assert local('/gs://b/x') == Path('/gs:/b/x')


@pytest.mark.parametrize(('path', 'told'), [('', '^workdir=: is empty'), ('~nobody-here/x', '~nobody-here is a home')])
def test_a_path_to_nowhere_is_told(path, told):
  with pytest.raises(ConfigError, match=told):
    local(path, 'workdir')


def test_without_a_home(nobody):
  with pytest.raises(ConfigError, match='workdir=~/x: ~ is a home directory that cannot be found'):
    local('~/x', 'workdir')
