"""Multi-process training: initialization and devices.

By hand, each with its own index and the address of the first:

python -m launch.train --config=... --workdir=... --coordinator=node0:8476 --processes=2 --process=0
"""

import os
import re
import socket
import threading
from collections.abc import Callable, Mapping, Sequence

import jax
from absl import flags, logging
from jax._src.distributed import global_state  # JAX exposes the client and address nowhere else

from research.errors import ConfigError
from research.parallel.liveness import Liveness, leave, watch_for_the_end_of_the_coordinator

COORDINATOR = flags.DEFINE_string('coordinator', None, 'HOST:PORT of the first process')
PROCESSES = flags.DEFINE_integer('processes', None, 'number of processes; 1: this one only, on any cluster')
PROCESS = flags.DEFINE_integer('process', None, 'index of this process, from 0')
HEARTBEAT = flags.DEFINE_integer('heartbeat_seconds', 30, 'how long after losing a process the others exit', 2)
JOIN = flags.DEFINE_integer('join_seconds', 120, 'how long processes wait for each other at the start', 1)

VARIABLES = {
  'coordinator': 'JAX_COORDINATOR_ADDRESS',
  'processes': 'JAX_NUM_PROCESSES',
  'process': 'JAX_PROCESS_ID',
}
SLURM = ('SLURM_NTASKS', 'SLURM_PROCID', 'SLURM_LOCALID', 'SLURM_STEP_NODELIST')  # what JAX needs besides the job
OPEN_MPI = 'OMPI_MCA_orte_hnp_uri'  # how JAX detects mpirun
ALONE = {'num_processes': 1}


def together(main: Callable[[], int | None]) -> Callable[[], int | None]:
  """Runs `main` together with the other processes, if flags, environment or cluster say that there are any."""

  def run() -> int | None:
    hosts = meet()
    if len(hosts) == 1:
      return main()
    with Liveness(global_state.client, global_state.process_id, hosts, HEARTBEAT.value):
      if jax.process_index() == 0:
        for line in device_map(hosts, jax.devices()):
          logging.info(line)
      return main()

  return run


def meet() -> list[str]:
  """Waits for all processes, before JAX's devices are used; returns the host of each, in order.

  Raises ConfigError for incomplete settings, or if processes cannot connect. If some do not join within --join_seconds,
  this process exits with a line and the code of LostProcessError.
  """
  given = {'coordinator': COORDINATOR.value, 'processes': PROCESSES.value, 'process': PROCESS.value}
  arguments = process_arguments(given, os.environ)
  if arguments == ALONE or not _initialize(arguments):
    return [socket.gethostname()]
  client = global_state.client
  client.key_value_set(f'strata/host/{global_state.process_id}', socket.gethostname())
  numbers = range(global_state.num_processes)
  return [client.blocking_key_value_get(f'strata/host/{number}', 1_000 * JOIN.value) for number in numbers]


def process_arguments(given: Mapping[str, object], environment: Mapping[str, str]) -> dict[str, object]:
  """Arguments of jax.distributed.initialize, from flags or variables; ALONE; or {} for JAX's own detection."""
  told = {name: environment.get(variable) for name, variable in VARIABLES.items()}
  told |= {name: value for name, value in given.items() if value is not None}
  names = {name: f'--{name} or {variable}' for name, variable in VARIABLES.items()}
  if not any(value is not None for value in told.values()):
    return _of_a_cluster(environment)
  if told['processes'] in (1, '1') and told['process'] in (None, 0, '0'):
    return ALONE
  if missing := [names[name] for name, value in told.items() if value is None]:
    raise ConfigError(
      f'{" and ".join(missing)} missing: many processes need {", ".join(names.values())}; one needs none'
    )
  processes, process = (_number(told[name], names[name]) for name in ('processes', 'process'))
  if not 0 <= process < processes:
    raise ConfigError(f'{names["process"]}={process}: with {processes} processes it must be 0 to {processes - 1}')
  if not re.fullmatch(r'.+:\d+', told['coordinator']):
    raise ConfigError(f'{names["coordinator"]}={told["coordinator"]}: must be HOST:PORT, the same for all processes')
  return {'coordinator_address': told['coordinator'], 'num_processes': processes, 'process_id': process}


def device_map(hosts: Sequence[str], devices: Sequence[jax.Device]) -> list[str]:
  """A line per process: its index, host and devices."""
  lines = []
  for process, host in enumerate(hosts):
    own = [device for device in devices if device.process_index == process]
    ids = ', '.join(str(device.id) for device in own)
    kind = own[0].device_kind if own else 'no device'
    lines.append(f'process {process} of {len(hosts)} on {host}: {len(own)} x {kind} ({ids})')
  return lines


def _number(value: object, name: str) -> int:
  if not str(value).isdecimal():
    raise ConfigError(f'{name}={value}: must be a number, 0 or more')
  return int(value)


def _of_a_cluster(environment: Mapping[str, str]) -> dict[str, object]:
  """{} or ALONE; raises ConfigError if JAX would wait forever for other processes, or miss them."""
  by_hand = 'give --coordinator, --processes and --process, or --processes=1 for this process alone'
  if OPEN_MPI in environment:
    return {}
  if (ranks := environment.get('OMPI_COMM_WORLD_SIZE', '1')) != '1':
    raise ConfigError(f'Open MPI started {ranks} processes but did not set {OPEN_MPI}, so JAX finds none: {by_hand}')
  job, tasks = environment.get('SLURM_JOB_ID'), environment.get('SLURM_NTASKS')
  if not job:
    return {}
  if tasks == '1':
    return ALONE
  missing = [name for name in SLURM if not environment.get(name)]
  step = environment.get('SLURM_STEP_NUM_TASKS', tasks)
  if missing or step != tasks:
    fault = f'{missing[0]} is not set' if missing else f'this step has {step} of {tasks} tasks'
    raise ConfigError(f'SLURM job {job}, but {fault}: put srun before the command, or {by_hand}')
  return {}


def _initialize(arguments: Mapping[str, object]) -> bool:
  """Connects to the other processes; returns whether there are any."""
  jax.config.update('jax_enable_preemption_service', False)  # it would handle SIGTERM, as the loop does
  watch_for_the_end_of_the_coordinator()
  late = threading.Timer(JOIN.value, _nobody_came)
  late.daemon = True
  late.start()
  try:
    jax.distributed.initialize(
      **arguments,
      cluster_detection_method='deactivate' if arguments else None,
      initialization_timeout=2 * JOIN.value + 60,  # a fallback for our own timeout: JAX aborts
      heartbeat_timeout_seconds=2 * HEARTBEAT.value + 10,
    )
  except (ValueError, RuntimeError) as error:
    if 'coordinator_address' in str(error):
      return False
    place = global_state.coordinator_address or 'the address of the cluster'
    raise ConfigError(f'processes cannot meet at {place}: {" ".join(str(error).split())}') from error
  finally:
    late.cancel()
  return True


def _nobody_came() -> None:
  number, place = global_state.process_id, global_state.coordinator_address
  missing = 'not all processes joined' if number == 0 else 'process 0, the coordinator, was not there'
  leave(f'process {number} waited {JOIN.value} s at {place}, but {missing}: start all with the same address and count')
