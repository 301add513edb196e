"""Counts the floating-point operations of a function from its jaxpr."""

import math
from collections.abc import Callable
from typing import Any

import jax
from jax.extend import core


def count_flops(function: Callable, *arguments: Any) -> int:
  """Operations of matrix products and convolutions in one call, two to a multiply-add; `arguments` may be abstract.

  The body of a scan counts once a turn, which XLA's own cost analysis misses; of the branches of a `cond` the
  longest counts, and the body of a `while`, whose turns are not known, once. What a convolution does on its padding
  counts; the zeros between dilated inputs, which the gradient of a strided one has, do not.
  """
  return _count(jax.make_jaxpr(function)(*arguments).jaxpr)


def _count(jaxpr: core.Jaxpr) -> int:
  return sum(_operations(equation) for equation in jaxpr.eqns)


def _operations(equation: core.JaxprEqn) -> int:
  shape = equation.outvars[0].aval.shape if equation.outvars else ()
  match equation.primitive.name:
    case 'dot_general':
      (contracted, _), _ = equation.params['dimension_numbers']
      left = equation.invars[0].aval.shape
      return 2 * math.prod(shape) * math.prod(left[axis] for axis in contracted)
    case 'conv_general_dilated':
      kernel = equation.invars[1].aval.shape
      outputs = kernel[equation.params['dimension_numbers'].rhs_spec[0]]
      return 2 * math.prod(shape) * math.prod(kernel) // outputs // math.prod(equation.params['lhs_dilation'])
    case 'scan':
      return equation.params['length'] * _count(equation.params['jaxpr'].jaxpr)
    case 'shard_map':  # of pmap too: each device runs the body
      return equation.params['mesh'].size * _count(equation.params['jaxpr'])
    case 'cond':
      return max(_count(branch.jaxpr) for branch in equation.params['branches'])
  return sum(map(_count, _called(equation)))


def _called(equation: core.JaxprEqn) -> list[core.Jaxpr]:
  """Jaxprs that an equation calls: of jit, checkpoint, while, custom derivatives, shard_map."""
  found = [getattr(value, 'jaxpr', value) for value in equation.params.values()]
  return [value for value in found if isinstance(value, core.Jaxpr)]
