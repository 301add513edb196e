"""Counts FLOPs and bytes of matrix products and convolutions in a function's jaxpr."""

import math
from collections.abc import Callable
from typing import Any

import jax
from jax.extend import core

Measure = Callable[[core.JaxprEqn], int]  # of a matrix product or convolution


def count_flops(function: Callable, *arguments: Any) -> int:
  """FLOPs of matrix products and convolutions in a call, two per multiply-add; `arguments` may be abstract.

  The body of a scan counts once per iteration, which XLA's own cost analysis misses; a `cond` counts its longest
  branch, and a `while` its body once. Operations on padding count; the zeros between dilated inputs, as in the gradient
  of a strided convolution, do not.
  """
  return _count(jax.make_jaxpr(function)(*arguments).jaxpr, _operations)


def count_bytes(function: Callable, *arguments: Any) -> int:
  """Bytes read and written by matrix products and convolutions in a call: operands and results, once each.

  Elementwise operations are assumed to be fused. Scans and branches count as in `count_flops`.
  """
  return _count(jax.make_jaxpr(function)(*arguments).jaxpr, _bytes)


def _count(jaxpr: core.Jaxpr, measure: Measure) -> int:
  return sum(_measured(equation, measure) for equation in jaxpr.eqns)


def _measured(equation: core.JaxprEqn, measure: Measure) -> int:
  match equation.primitive.name:
    case 'dot_general' | 'conv_general_dilated':
      return measure(equation)
    case 'scan':
      return equation.params['length'] * _count(equation.params['jaxpr'].jaxpr, measure)
    case 'shard_map':  # also of pmap: each device runs the body
      return equation.params['mesh'].size * _count(equation.params['jaxpr'], measure)
    case 'cond':
      return max(_count(branch.jaxpr, measure) for branch in equation.params['branches'])
  return sum(_count(jaxpr, measure) for jaxpr in _called(equation))


def _operations(equation: core.JaxprEqn) -> int:
  left, right = (variable.aval.shape for variable in equation.invars)
  outputs = math.prod(equation.outvars[0].aval.shape)
  if equation.primitive.name == 'dot_general':
    (contracted, _), _ = equation.params['dimension_numbers']
    return 2 * outputs * math.prod(left[axis] for axis in contracted)
  channels = right[equation.params['dimension_numbers'].rhs_spec[0]]
  return 2 * outputs * math.prod(right) // channels // math.prod(equation.params['lhs_dilation'])


def _bytes(equation: core.JaxprEqn) -> int:
  avals = [variable.aval for variable in (*equation.invars, *equation.outvars)]
  return sum(math.prod(aval.shape) * aval.dtype.itemsize for aval in avals)


def _called(equation: core.JaxprEqn) -> list[core.Jaxpr]:
  """Jaxprs that an equation calls: of jit, checkpoint, while, custom derivatives, shard_map."""
  found = [getattr(value, 'jaxpr', value) for value in equation.params.values()]
  return [value for value in found if isinstance(value, core.Jaxpr)]
