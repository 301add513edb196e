"""Benchmarks that measure in processes of their own do so in this one."""

from concurrent.futures import Future

import pytest

from launch import cpu


class InProcess:
  """A pool of processes that has none."""

  def __init__(self, *_, **__): ...

  def __enter__(self):
    return self

  def __exit__(self, *_): ...

  def submit(self, function, *arguments):
    future = Future()
    try:
      future.set_result(function(*arguments))
    except Exception as error:
      future.set_exception(error)
    return future


@pytest.fixture
def in_process(monkeypatch):
  """Function that gives a benchmark such a pool."""
  monkeypatch.setattr(cpu, 'tune', lambda: [])  # which would change the environment of later tests
  return lambda benchmark: monkeypatch.setattr(benchmark, 'ProcessPoolExecutor', InProcess)
