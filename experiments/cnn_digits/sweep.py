"""Eight trials of a random search (Bergstra & Bengio 2012) around the recorded experiment."""

from research.sweep.trials import Trial, choice, log_uniform, uniform, zipped

COUNT = 8


def sweep() -> list[Trial]:
  return zipped(
    log_uniform('optimizer.lr', 3e-4, 3e-2, COUNT),
    uniform('dropout_rate', 0.0, 0.6, COUNT),
    choice('channels', [(16, 32), (32, 64)], COUNT),
  )
