"""What a trained model computes from raw inputs: evaluated, sampled and exported."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from research.tasks.base import State, evaluation_variables
from research.tasks.precision import computing_in
from research.types import Batch, Model, PyTree


def plain_outputs(model: Model, variables: PyTree, batch: Batch) -> PyTree:
  """The model's own outputs for a preprocessed batch."""
  return model.apply(variables, batch['inputs'], train=False)


@dataclass(frozen=True, eq=False)  # so that it is hashable, for jax.jit
class Network:
  """A model with the preprocessing of its inputs: `network(variables, batch)` returns the outputs for raw inputs.

  Of a batch it reads only the arrays named in `reads`, so no output can depend on a target.
  """

  model: Model
  preprocess: Callable[[Batch], Batch] = lambda batch: batch
  outputs: Callable[[Model, PyTree, Batch], PyTree] = plain_outputs  # for a preprocessed batch; may decode
  reads: tuple[str, ...] = ('inputs', 'lengths')  # as far as the examples have them

  def __call__(self, variables: PyTree, batch: Batch) -> PyTree:
    raw = {name: batch[name] for name in self.reads if name in batch}
    return self.outputs(self.model, variables, self.preprocess(raw))

  def computing_in(self, precision: str) -> 'Network':
    """The same network in one of `research.tasks.precision.PRECISIONS`."""
    return replace(self, model=computing_in(precision, self.model))


def predictor(network: Callable[[PyTree, Batch], PyTree]) -> Callable[[State, Batch], PyTree]:
  """Function (state, batch) -> outputs of the network, with the evaluation variables."""
  return lambda state, batch: network(evaluation_variables(state), batch)
