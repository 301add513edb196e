"""Which operation first makes a number that is not finite: a function is run again, one operation at a time.

`jax.debug_nans` runs a function again as Python, and so knows the operation but neither the module nor, in a backward
pass, the place. A jaxpr knows both of every operation.
"""

import contextlib
import re
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import flax
import jax
import jax.numpy as jnp
import optax
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal, jaxpr_as_fun

from research.errors import NotFiniteError

LIBRARIES = tuple(str(Path(module.__file__).parent) for module in (jax, flax, optax))
BODIES = ('jaxpr', 'call_jaxpr', 'fun_jaxpr')  # parameters of an operation that only calls others
# Run as one: what calls their bodies elementwise, or in a context of their own.
OPAQUE = ('while', 'shard_map', 'pallas_call', 'reduce', 'reduce_window')


class Traced(NamedTuple):
  """A value and, where it is not finite, what first made it so: '' if it was given."""

  value: Any
  origin: str = ''


@contextlib.contextmanager
def unguarded() -> Iterator[None]:
  """Without JAX's own checks, which would stop at whatever is not finite, be it masked or not."""
  with jax.debug_nans(False), jax.debug_infs(False):
    yield


@contextlib.contextmanager
def jax_checks(what: str, kept: str) -> Iterator[None]:
  """Raises NotFiniteError, one line, for what JAX's own checks find within."""
  try:
    yield
  except FloatingPointError as error:
    frames = traceback.extract_tb(error.__traceback__)
    place = [frame for frame in frames if not frame.filename.startswith(LIBRARIES)][-1]
    raise NotFiniteError(f'{what}: {error}: {place.name} ({place.filename}:{place.lineno}); {kept}') from error


def first_not_finite(function: Callable[..., Any], *arguments: Any) -> str:
  """The operation, its module and its line that made the first output of `function` that is not finite.

  '' where all outputs are finite, or were given an infinity. What does not reach an output, such as a masked
  infinity, is no fault.
  """
  closed = jax.make_jaxpr(function)(*arguments)
  outputs = _replay(closed.jaxpr, closed.consts, list(map(Traced, jax.tree.leaves(arguments))), '')
  return next((output.origin for output in outputs if not _finite(output.value)), '')


def _replay(jaxpr: Jaxpr, consts: Sequence[Any], inputs: Sequence[Traced], scope: str) -> list[Traced]:
  values = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*map(Traced, consts), *inputs], strict=True))

  def read(atom: Any) -> Traced:
    return Traced(atom.val) if isinstance(atom, Literal) else values[atom]

  for eqn in jaxpr.eqns:
    values.update(zip(eqn.outvars, _outputs(jaxpr, eqn, list(map(read, eqn.invars)), scope), strict=True))
  return list(map(read, jaxpr.outvars))


def _outputs(jaxpr: Jaxpr, eqn: JaxprEqn, inputs: list[Traced], scope: str) -> list[Traced]:
  scope = f'{scope}/{eqn.source_info.name_stack}'
  name, body = eqn.primitive.name, next((eqn.params[key] for key in BODIES if key in eqn.params), None)
  if name == 'scan' and eqn.params['length']:
    return _scan(eqn, inputs, scope)
  if name == 'cond':
    body, inputs = eqn.params['branches'][int(inputs[0].value)], inputs[1:]
  if body is not None and name not in OPAQUE:
    return _replay(getattr(body, 'jaxpr', body), getattr(body, 'consts', ()), inputs, scope)
  outputs = _alone(jaxpr, eqn, [given.value for given in inputs])
  return [
    Traced(value, '' if _finite(value) else _origin(inputs) or _place(eqn, inputs, value, scope)) for value in outputs
  ]


def _alone(jaxpr: Jaxpr, eqn: JaxprEqn, inputs: list[Any]) -> list[Any]:
  """What one operation of `jaxpr` returns."""
  values = {atom: value for atom, value in zip(eqn.invars, inputs, strict=True) if not isinstance(atom, Literal)}
  jaxpr = jaxpr.replace(constvars=[], invars=list(values), outvars=eqn.outvars, eqns=[eqn], effects=eqn.effects)
  return jaxpr_as_fun(ClosedJaxpr(jaxpr, ()))(*values.values())


def _scan(eqn: JaxprEqn, inputs: list[Traced], scope: str) -> list[Traced]:
  """A scan as a loop in Python, which knows in which of its steps a value was made."""
  params, body = eqn.params, eqn.params['jaxpr']
  # What is scanned has an axis more outside than in the body; the names of these counts depend on JAX's version.
  scanned = sum(given.aval.ndim > aval.ndim for given, aval in zip(eqn.invars, body.in_avals, strict=True))
  num_carry = sum(made.aval.ndim == aval.ndim for made, aval in zip(eqn.outvars, body.out_avals, strict=True))
  carried = len(inputs) - scanned
  constants = carried - num_carry
  carry, rows = inputs[constants:carried], []
  order = range(params['length'])
  for number in reversed(order) if params['reverse'] else order:
    now = [Traced(given.value[number], given.origin) for given in inputs[carried:]]
    outputs = _replay(body.jaxpr, body.consts, [*inputs[:constants], *carry, *now], scope)
    carry = outputs[:num_carry]
    rows.append(outputs[num_carry:])
  return carry + [_stacked(column) for column in zip(*rows[:: -1 if params['reverse'] else 1], strict=True)]


def _stacked(rows: Sequence[Traced]) -> Traced:
  return Traced(jnp.stack([row.value for row in rows]), _origin(rows))


def _origin(inputs: Sequence[Traced]) -> str:
  """Where the inputs that are not finite come from; those that are NaN first, for an infinity may be a mask."""
  known = [given for given in inputs if given.origin and not _finite(given.value)]
  return next((given.origin for given in sorted(known, key=lambda given: not _has_nan(given.value))), '')


def _finite(value: Any) -> bool:
  return not jnp.issubdtype(jnp.result_type(value), jnp.inexact) or bool(jnp.isfinite(value).all())


def _has_nan(value: Any) -> bool:
  return bool(jnp.isnan(value).any())


def _place(eqn: JaxprEqn, inputs: Sequence[Traced], output: Any, scope: str) -> str:
  """Such as: div in the gradient of MLP/dense_0 (loss, mlp.py:12); '' where a given infinity is passed on."""
  if not _has_nan(output) and not all(_finite(given.value) for given in inputs):
    return ''
  frames = eqn.source_info.traceback.frames if eqn.source_info.traceback else ()
  own = next((frame for frame in frames if not frame.file_name.startswith(LIBRARIES)), None)
  where = f' ({own.function_name}, {own.file_name}:{own.line_num})' if own else ''
  module = _module(scope)
  gradient = 'the gradient of ' if 'transpose(' in scope else ''
  return f'{eqn.primitive.name}{f" in {gradient}{module}" if module else ""}{where}'


def _module(scope: str) -> str:
  """Path of a Linen module from the names that JAX and Linen give to operations: jvp(MLP)/Dense_0."""
  parts = [part.partition('.')[0] for part in re.sub(r'\w+\(|\)', '', scope).split('/')]
  return '/'.join(part for number, part in enumerate(parts) if part and part not in parts[:number][-1:])
