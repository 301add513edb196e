"""`launch.train` as a task of a cluster's job, which starts again where it was when the cluster wants its place."""

import signal
import sys
from collections.abc import Sequence

from launch import app, distributed, train


class Job:
  """What submitit calls in every task: `launch.train` with `words`, its command line."""

  def __init__(self, words: Sequence[str], requeue: bool):
    self.words, self.requeue = list(words), requeue
    self._preempted = False

  def __call__(self) -> None:
    """Trains, and has the job started again if it was to make room; raises SystemExit with the code of a fault."""
    start_again = signal.getsignal(signal.SIGUSR2)  # what submitit does when a job is to make room
    signal.signal(signal.SIGTERM, _end)
    signal.signal(signal.SIGUSR2, self._make_room)
    sys.argv = ['launch.train', *self.words]
    try:
      app.run(distributed.together(train.main))
    except SystemExit as ended:
      if self._preempted and self.requeue and ended.code == 128 + signal.SIGTERM:
        start_again(signal.SIGUSR2, None)
      if ended.code:
        raise

  def checkpoint(self) -> object:
    """What submitit runs in the next turn: the same, as all else is in the workdir."""
    from submitit.helpers import DelayedSubmission

    return DelayedSubmission(Job(self.words, self.requeue))

  def _make_room(self, signum: int, frame) -> None:
    """SIGUSR2 means what SIGTERM does, and often comes with one: it must not be the second, which ends at once."""
    self._preempted = True
    signal.getsignal(signal.SIGTERM)(signal.SIGTERM, frame)


def _end(signum: int, frame) -> None:
  """Before and after the loop, which sees to SIGTERM itself, there is nothing to save."""
  raise SystemExit(128 + signum)
