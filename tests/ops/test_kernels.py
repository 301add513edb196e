"""Every kernel against its plain form, in whatever may meet it: one row of CASES for each shape that matters."""

import re
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export
from jax.sharding import NamedSharding, PartitionSpec

from research.errors import ConfigError
from research.ops import kernels
from research.ops.attention import attention
from research.ops.bias import bias_add
from research.ops.conv import convolve, convolve_transposed
from research.ops.norm import normalized
from research.ops.pooling import max_pool
from research.ops.product import product


class Case(NamedTuple):
  """An operation by the kernel `name` of arrays with `shapes`; the first axis of the first one is the batch."""

  name: str
  operation: Callable
  shapes: tuple[tuple[int, ...], ...]
  double: float = 1e-9  # how far the plain form may be off in float64

  def operands(self, dtype=np.float64) -> list[jax.Array]:
    rng = np.random.default_rng(0)
    return [jnp.asarray(rng.standard_normal(shape), dtype) for shape in self.shapes]

  def plain(self, *operands):
    with kernels.plain(self.name):
      return self.operation(*operands)

  def gradients(self, operation: Callable) -> Callable:
    """Of a loss to which every output counts in a way of its own, by every operand."""
    loss = lambda *operands: sum(jnp.sum(jnp.sin(y)) for y in jax.tree.leaves(operation(*operands)))  # noqa: E731
    return jax.grad(loss, tuple(range(len(self.shapes))))


def convolution(strides, padding):
  return partial(convolve, strides=strides, padding=padding)


def attended(qkv, masked):
  """By queries, keys and values in one array; masked, the first query of some examples may look at nothing."""
  queries, keys, values = jnp.moveaxis(qkv, 2, 0)
  seen = (jnp.arange(qkv.shape[1]) > 0)[None, :, None] | (queries[:, :1, :1, 0] > 0)
  return attention(queries, keys, values, seen[:, None] if masked else None, causal=masked)


CASES = {
  # In float64 too JAX takes the softmax in float32.
  'attention': Case('attention', partial(attended, masked=False), ((8, 5, 3, 2, 4),), double=1e-5),
  'attention, masked': Case('attention', partial(attended, masked=True), ((8, 5, 3, 2, 4),), double=1e-5),
  'bias': Case('bias', bias_add, ((8, 3, 2), (2,))),
  'convolution': Case('convolution', convolution((2, 1), ((1, 1), (0, 2))), ((8, 5, 4, 3), (3, 2, 3, 2))),
  'convolution, one channel': Case('convolution', convolution((2, 1), 'SAME'), ((8, 5, 4, 1), (3, 3, 1, 2))),
  'max_pool': Case('max_pool', partial(max_pool, window=(2, 2)), ((8, 4, 5, 2),)),
  'norm of a batch': Case('norm', partial(normalized, group=0, epsilon=1e-3), ((8, 3, 2, 4), (4,), (4,))),
  'norm of groups': Case('norm', partial(normalized, group=2, epsilon=1e-3), ((8, 3, 4), (4,), (4,))),
  'product': Case('product', product, ((8, 3, 2), (2, 4))),
  'transposed convolution': Case(
    'transposed_convolution',
    partial(convolve_transposed, strides=(2, 1), padding='SAME'),
    ((8, 3, 2, 3), (3, 2, 3, 2)),
  ),
}
every_case = pytest.mark.parametrize('case', CASES.values(), ids=CASES)


def assert_alike(ours, plain, tolerance=1e-9):
  compare = partial(np.testing.assert_allclose, rtol=tolerance, atol=tolerance)
  jax.tree.map(compare, ours, plain)


def residual_bytes(operation, operands):
  return sum(leaf.nbytes for leaf in jax.tree.leaves(jax.vjp(operation, *operands)[1]))


def test_every_kernel_has_a_case():
  assert {case.name for case in CASES.values()} == set(kernels.NAMES)


@every_case
def test_value_and_gradient_in_double_precision(x64, case):
  both = lambda operation: jax.jit(lambda *xs: (operation(*xs), case.gradients(operation)(*xs)))(*case.operands())  # noqa: E731
  assert_alike(both(case.operation), both(case.plain), case.double)


@every_case
def test_value_and_gradient_in_single_precision(case):
  operands = case.operands(np.float32)
  assert_alike(case.operation(*operands), case.plain(*operands), 1e-5)
  ours, plain = (case.gradients(operation)(*operands) for operation in (case.operation, case.plain))
  assert_alike(ours, plain, 1e-5)
  assert {leaf.dtype for leaf in jax.tree.leaves(ours)} == {np.dtype(np.float32)}


@every_case
@pytest.mark.parametrize(('dtype', 'tolerance'), [('bfloat16', 2e-2), ('float16', 2.5e-3)])
def test_value_and_gradient_in_half_precision(case, dtype, tolerance):
  """Of the plain form's types, and near its values in float32: off by a part of each array's largest entry."""
  halves = case.operands(dtype)
  both = lambda operation: lambda *xs: (operation(*xs), case.gradients(operation)(*xs))  # noqa: E731
  ours = jax.jit(both(case.operation))(*halves)
  plain = jax.jit(both(case.plain))(*(x.astype(jnp.float32) for x in halves))
  types = lambda tree: jax.tree.map(lambda leaf: leaf.dtype, tree)  # noqa: E731
  assert types(ours) == types(jax.eval_shape(both(case.plain), *halves))
  for one, other in zip(*map(jax.tree.leaves, (ours, plain)), strict=True):
    np.testing.assert_allclose(one.astype(jnp.float32), other, rtol=0, atol=tolerance * abs(other).max())


@every_case
def test_vmap_scan_and_derivatives_of_derivatives(x64, case):
  """Forward over reverse and reverse over reverse."""

  def modes(operation, *operands):
    gradients = case.gradients(operation)
    twice = [jnp.stack([x, x + 1]) for x in operands]
    penalty = lambda *xs: sum(jnp.sum(g**2) for g in gradients(*xs))  # noqa: E731
    return (
      jax.vmap(gradients)(*twice),
      jax.lax.scan(lambda _, xs: (None, gradients(*xs)), None, twice),
      jax.jvp(gradients, operands, operands),
      jax.grad(penalty, tuple(range(len(operands))))(*operands),
    )

  ours, plain = (jax.jit(partial(modes, operation))(*case.operands()) for operation in (case.operation, case.plain))
  assert_alike(ours, plain, case.double)


@every_case
def test_no_more_is_kept_for_the_backward_pass(case):
  operands = case.operands(np.float32)
  assert residual_bytes(case.operation, operands) <= residual_bytes(case.plain, operands)


@every_case
def test_devices_share_the_batch_without_gathering_it(case):
  mesh = jax.make_mesh((8,), ('data',), axis_types=(jax.sharding.AxisType.Auto,))
  places = [NamedSharding(mesh, PartitionSpec(*axes)) for axes in (('data',), *[()] * (len(case.shapes) - 1))]
  operands = case.operands(np.float32)
  step = jax.jit(case.gradients(case.operation), in_shardings=places).lower(*operands).compile()
  assert 'all-gather' not in step.as_text() and 'all-to-all' not in step.as_text()
  assert_alike(step(*map(jax.device_put, operands, places)), case.gradients(case.plain)(*operands), 1e-5)


@every_case
def test_an_artifact_for_every_platform_and_batch(case):
  """On accelerators the program is the plain one; what is computed again in the backward pass XLA finds at hand."""
  operands = [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in case.operands(np.float32)]
  operands[0] = operands[0].update(shape=export.symbolic_shape(','.join(('b', *map(str, case.shapes[0][1:])))))
  gradients = jax.jit(case.gradients(case.operation))
  exported = export.export(gradients, platforms=('cpu', 'cuda', 'tpu'))(*operands)
  assert_alike(exported.call(*case.operands(np.float32)), case.gradients(case.plain)(*case.operands(np.float32)), 1e-5)
  for platform in ('cuda', 'tpu'):
    ours, plain = (
      jax.jit(case.gradients(operation)).trace(*operands).lower(lowering_platforms=(platform,)).as_text()
      for operation in (case.operation, jax.checkpoint(case.plain, prevent_cse=False))
    )
    assert set(_costly(ours)) == set(_costly(plain))


@every_case
def test_the_choice_itself_adds_nothing(case, monkeypatch):
  """The compiler finds what the backward pass computes anew: what is left is the plain form's program."""
  by_platform, operands = kernels._by_platform, case.operands(np.float32)
  monkeypatch.setattr(kernels, '_by_platform', lambda fast, plain, **options: by_platform(plain, plain, **options))
  ours, plain = (
    jax.jit(case.gradients(operation)).lower(*operands).compile().as_text()
    for operation in (case.operation, case.plain)
  )
  assert _costly(ours) == _costly(plain)


def _costly(text):
  """How often each operation that takes time is in a program, lowered or compiled."""
  kinds = 'convolution|dot|reduce|reduce_window|select_and_scatter|optimization_barrier'
  return Counter(re.findall(rf'[ .]({kinds})(?:_general)?["( ]', text.replace('-', '_')))


@every_case
def test_the_switch_has_jit_trace_anew(case):
  step, operands = jax.jit(case.gradients(case.operation)), case.operands(np.float32)
  jaxpr = lambda: str(step.trace(*operands).jaxpr)  # noqa: E731
  assert 'platform_index' in jaxpr()
  with kernels.plain(case.name):
    assert 'platform_index' not in jaxpr()
    with kernels.plain():
      assert 'platform_index' not in jaxpr()
  assert 'platform_index' in jaxpr()


def test_an_unknown_kernel_is_named():
  with pytest.raises(
    ConfigError, match='kernel convolutoin: is unknown; nearest: convolution, transposed_convolution$'
  ):
    kernels.plain('bias', 'convolutoin')
