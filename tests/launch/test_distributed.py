"""Processes that train together: how they are told of each other, how they meet, and how they end together."""

import re
import signal
import socket
import time
from types import SimpleNamespace

import pytest
from forks import Program
from runs import free_port

from launch.distributed import ALONE, device_map, process_arguments
from research.errors import ConfigError

NOTHING = {'coordinator': None, 'processes': None, 'process': None}
FLAGS = {'coordinator': 'node0:8476', 'processes': 2, 'process': 1}
TOLD = {'coordinator_address': 'node0:8476', 'num_processes': 2, 'process_id': 1}
VARIABLES = {'JAX_COORDINATOR_ADDRESS': 'node0:8476', 'JAX_NUM_PROCESSES': '2', 'JAX_PROCESS_ID': '1'}
TASK = {'SLURM_JOB_ID': '7', 'SLURM_NTASKS': '2', 'SLURM_PROCID': '1', 'SLURM_LOCALID': '1'}
STEP = {**TASK, 'SLURM_STEP_NODELIST': 'node[0-1]', 'SLURM_STEP_NUM_TASKS': '2'}
SECONDS = 3  # in which all end after a loss

# A sum over all processes, again and again; one that is told so fails after a second.
MEMBER = """
import sys, time
import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from launch import app, distributed
from research.errors import ConfigError

seconds, failing = float(sys.argv.pop(1)), sys.argv.pop(1)

def main():
  mesh = Mesh(np.array(jax.devices()), ('data',))
  shards = NamedSharding(mesh, PartitionSpec('data'))
  ones = jax.make_array_from_callback((jax.device_count(),), shards, lambda index: np.ones(1, np.float32))
  total = jax.jit(lambda array: array.sum(), out_shardings=NamedSharding(mesh, PartitionSpec()))
  for tick in range(int(20 * seconds)):
    value = float(total(ones))
    if tick == 0:
      print('started', flush=True)
    if tick == 20 and str(jax.process_index()) in failing:
      raise ConfigError('a fault of its own')
    time.sleep(0.05)
  print('sum', value)

app.run(distributed.together(main))
"""


@pytest.fixture
def members(programs, on_one_device):
  """Function (count, seconds, failing) -> the processes, which have taken a sum; all are killed at the end."""
  processes = []

  def start(count: int, seconds: float = 60, failing: str = '-', by_slurm: bool = False) -> list[Program]:
    port = free_port()
    for number in range(count):
      words, environment = ['-c', MEMBER, str(seconds), failing, f'--heartbeat_seconds={SECONDS}'], on_one_device
      if by_slurm:
        task = {'SLURM_PROCID': str(number), 'SLURM_STEP_NODELIST': 'localhost,node1'}
        environment = {**environment, **STEP, **task, 'JAX_COORDINATOR_PORT': str(port)}
      else:
        words += [f'--coordinator=127.0.0.1:{port}', f'--processes={count}', f'--process={number}']
      processes.append(programs.start(words, environment))
    for process in processes:
      while (line := process.stdout.readline()) != 'started\n':
        assert line, process.stderr.read()
    return processes

  yield start
  for process in processes:
    process.kill()
    process.communicate()


def end(process: Program) -> tuple[int, str]:
  """Exit code and the last line on standard error."""
  _, errors = process.communicate(timeout=60)
  assert 'Traceback' not in errors, errors
  return process.returncode, errors.splitlines()[-1]


@pytest.mark.parametrize(
  ('given', 'environment', 'expected'),
  [
    ({}, {}, {}),
    (FLAGS, {}, TOLD),
    ({}, VARIABLES, TOLD),
    ({'process': 0}, VARIABLES, {**TOLD, 'process_id': 0}),
    (FLAGS, STEP, TOLD),
    ({'processes': 1}, {}, ALONE),
    ({'processes': 1}, TASK, ALONE),
    ({}, STEP, {}),
    ({}, {**TASK, 'SLURM_NTASKS': '1'}, ALONE),
    ({}, {'SLURM_JOB_ID': '7', 'OMPI_COMM_WORLD_SIZE': '4', 'OMPI_MCA_orte_hnp_uri': '0;tcp://10.0.0.1:1'}, {}),
    ({}, {'OMPI_COMM_WORLD_SIZE': '1'}, {}),
  ],
)
def test_flags_come_before_variables_and_those_before_the_cluster(given, environment, expected):
  assert process_arguments({**NOTHING, **given}, environment) == expected


@pytest.mark.parametrize(
  ('given', 'environment', 'told'),
  [
    ({'coordinator': 'node0:1'}, {}, '--processes or JAX_NUM_PROCESSES and --process or JAX_PROCESS_ID missing'),
    ({'processes': 2, 'process': 0}, {}, '--coordinator or JAX_COORDINATOR_ADDRESS missing'),
    ({}, {'JAX_PROCESS_ID': '0'}, 'JAX_COORDINATOR_ADDRESS and --processes or JAX_NUM_PROCESSES missing'),
    ({}, {**VARIABLES, 'JAX_NUM_PROCESSES': 'two'}, 'JAX_NUM_PROCESSES=two: must be a number'),
    ({**FLAGS, 'process': 2}, {}, '--process or JAX_PROCESS_ID=2: with 2 processes it must be 0 to 1'),
    ({**FLAGS, 'process': -1}, {}, '--process or JAX_PROCESS_ID=-1: must be a number'),
    ({**FLAGS, 'coordinator': 'node0'}, {}, 'node0: must be HOST:PORT'),
    ({}, {'SLURM_JOB_ID': '7'}, 'SLURM job 7, but SLURM_NTASKS is not set: put srun before'),
    ({}, TASK, 'SLURM job 7, but SLURM_STEP_NODELIST is not set'),
    ({}, {**STEP, 'SLURM_STEP_NUM_TASKS': '1'}, 'this step has 1 of 2 tasks'),
    ({}, {'OMPI_COMM_WORLD_SIZE': '4'}, 'Open MPI started 4 processes'),
  ],
)
def test_halves_are_refused_in_one_line(given, environment, told):
  with pytest.raises(ConfigError) as error:
    process_arguments({**NOTHING, **given}, environment)
  assert told in str(error.value) and '\n' not in str(error.value)


def test_map_has_a_line_for_each_process():
  devices = [SimpleNamespace(id=number, process_index=number // 2, device_kind='TPU v4') for number in range(4)]
  assert device_map(['a', 'b'], devices) == [
    'process 0 of 2 on a: 2 x TPU v4 (0, 1)',
    'process 1 of 2 on b: 2 x TPU v4 (2, 3)',
  ]


@pytest.mark.parametrize('by_slurm', [False, True])
def test_processes_meet(by_slurm, members):
  first, second = members(2, seconds=0.2, by_slurm=by_slurm)
  output, errors = first.communicate(timeout=60)
  assert (first.returncode, output) == (0, 'sum 2.0\n'), errors
  assert [f'process {number} of 2 on {socket.gethostname()}: 1 x cpu' in errors for number in (0, 1)] == [True, True]
  output, errors = second.communicate(timeout=60)
  assert (second.returncode, output) == (0, 'sum 2.0\n') and 'process 0 of 2' not in errors


def general(line: str) -> str:
  """A line without what differs between machines and moments."""
  line = re.sub(r'\(.+?\)', '(HOST)', line)
  return re.sub(r'127\.0\.0\.1:\d+', 'HOST:PORT', re.sub(r'[\d.]+ s\b', 'N s', line))


@pytest.mark.parametrize('victim', [0, 1])
@pytest.mark.parametrize('signum', [signal.SIGKILL, signal.SIGSTOP])
def test_the_others_name_the_process_that_was_lost(signum, victim, members, fault):
  processes = members(3)
  began = time.monotonic()
  lost = processes.pop(victim)
  lost.send_signal(signum)
  for process in processes:
    code, line = end(process)
    assert code == 7 and f'process {victim}' in line and 'lost' in line and 'same command' in line, line
  assert time.monotonic() - began < 5 * SECONDS  # JAX's own time-out is longer
  lost.kill()
  if victim == 1:
    name = 'a process dies' if signum == signal.SIGKILL else 'a process hangs'
    fault(name, general(line), code, 'all up to the newest checkpoint; from there the same end')


@pytest.mark.parametrize('failing', [0, 1])
def test_a_fault_of_one_ends_all(failing, members):
  processes = members(2, failing=str(failing))
  assert end(processes[failing]) == (2, 'error: a fault of its own')
  code, line = end(processes[1 - failing])
  assert code == 7 and f'process {failing}' in line and 'lost' in line


def test_a_fault_of_all_is_told_by_each(members):
  processes = members(2, failing='01')
  assert [end(process) for process in processes] == [(2, 'error: a fault of its own')] * 2


@pytest.mark.parametrize(('number', 'missing'), [(0, 'not all processes joined'), (1, 'process 0, the coordinator')])
def test_processes_that_never_come(number, missing, programs, on_one_device, fault):
  place = f'127.0.0.1:{free_port()}'
  told = [f'--coordinator={place}', '--processes=2', f'--process={number}', '--join_seconds=1']
  code, line = end(programs.start(['-c', MEMBER, '1', '-', *told], on_one_device))
  assert code == 7 and place in line and missing in line
  if number == 0:
    fault('a process is late', general(line), code, 'all; nothing was started')
