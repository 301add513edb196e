"""Runs or resumes a sweep, and reports the best trial on validation.

python -m launch.sweep --config=cnn_digits --root=runs/sweep/digits --runner=processes
"""

from pathlib import Path

import jax
from absl import flags

from launch import app
from launch.cluster import executor
from launch.flags import PathParser, config_file, config_of, define_config
from research.sweep.plan import make_plan
from research.sweep.root import claim, held
from research.sweep.runners import Job, run_array, run_local
from research.sweep.selection import by_metric, by_score, check, ranked, read_outcome, write_report
from research.train.rerun import finished
from research.train.signals import Stop

CONFIG = define_config()
SWEEP = flags.DEFINE(PathParser(optional=True), 'sweep', '', 'file of the sweep; empty: sweep.py next to the config')
RUNS = flags.DEFINE(PathParser(), 'root', None, 'folder of the workdirs, the table and the figure', required=True)
RUNNER = flags.DEFINE_enum('runner', 'serial', ['serial', 'processes', 'slurm'], 'where the trials run')
PROCESSES = flags.DEFINE_integer('processes', 2, 'number of parallel trials of --runner=processes', lower_bound=1)
METRIC = flags.DEFINE_string('metric', '', "validation/NAME to select by; empty: the experiment's score")
DIRECTION = flags.DEFINE_enum('direction', '', ['', 'min', 'max'], 'whether a low or a high --metric is best')


def main() -> None:
  jax.config.update('jax_platforms', 'cpu')  # leave accelerators to the trials
  config, root = CONFIG.value, RUNS.value
  file = flags.FLAGS['config'].file
  plan = make_plan(file, config, SWEEP.value or config_file(file).with_name('sweep.py'), config_of)
  criterion = by_metric(METRIC.value, DIRECTION.value) if METRIC.value else None
  with held(root, plan.facts), Stop() as stop:
    experiment = config.build()  # download the data once, not in every trial
    criterion = criterion or by_score(experiment.score)
    claim(root, plan.facts)
    jobs = [plan.job(name, root, app.machine_flags()) for name in plan.trials]
    left = [job for job in jobs if not finished(job.workdir)]
    codes = {job.name: 0 for job in jobs} | dict(zip((job.name for job in left), run(left, root, stop), strict=True))
    outcomes = [read_outcome(job.name, plan.fields[job.name], codes[job.name], job.workdir) for job in jobs]
    text = write_report(ranked(outcomes, criterion), criterion, plan, root)
    print(text, '', *sorted(root.glob('trials.*')), sep='\n')  # last, as the terminal may be closed
  check(outcomes, root, stop.signum)


def run(jobs: list[Job], root: Path, stop: Stop) -> list[int | None]:
  """Runs jobs with the chosen runner; returns exit codes."""
  if RUNNER.value == 'slurm' and jobs:
    return run_array(jobs, executor(whole=True), stop)
  return run_local(jobs, PROCESSES.value if RUNNER.value == 'processes' else 1, stop)


if __name__ == '__main__':
  app.run(main)
