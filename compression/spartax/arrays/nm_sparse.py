"""`NMSparse`: the `n` kept values of every group of `m` inputs, and where they stand."""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from spartax import checks
from spartax.arrays import matrix_view, packed, verbs
from spartax.arrays.matrix_view import MatrixView
from spartax.arrays.permuted import Permuted
from spartax.arrays.use import Use
from spartax.kernels import paths
from spartax.kernels.bits import cell
from spartax.kernels.nm_matmul import choice, form, nm_matmul
from spartax.records import Array


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class NMSparse(verbs.Leaf):
    """A weight seen as a matrix `[inputs, outputs]` that keeps `n` of every `m` neighbours along its inputs.

    A group holds exactly `n` values; one that keeps fewer is filled up with zeros. 2:4 takes half of the dense bytes
    and one bit an entry. No matrix unit that JAX reaches skips the zeros: this saves memory, not multiplications.

    Attributes:
      values: `[n, groups, columns]`, an array or leaf; more axes in front are a stack.
      places: `[n, cell, groups / cell, columns]`, where in its group each value is, `Packed` in `ceil(log2 m)` bits.
      m: size of a group.
      size: sizes of the axes of the matrix, inputs before outputs.
      columns: how many of these axes are outputs.
      order: `dense` axis `k` is axis `order[k]` of the matrix.
    """

    values: Any
    places: packed.Packed
    m: int = dataclasses.field(metadata={"static": True})
    size: tuple[int, ...] = dataclasses.field(metadata={"static": True})
    columns: int = dataclasses.field(metadata={"static": True})
    order: tuple[int, ...] = dataclasses.field(metadata={"static": True})

    @property
    def stack(self) -> tuple[int, ...]:
        """Sizes of the leading stack axes."""
        return tuple(self.values.shape[:-3])

    @property
    def n(self) -> int:
        """Kept values of a group."""
        return self.values.shape[-3]

    @property
    def view(self) -> MatrixView:
        """The weight as a matrix."""
        return MatrixView(self.size, self.columns, self.order)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the dense weight."""
        return (*self.stack, *self.view.shape)

    @property
    def dtype(self) -> np.dtype:
        """Dtype of the values."""
        return verbs.float_dtype(self.values)


def nm_sparse(x: Any, mask: Array, n: int, m: int, inputs: tuple[int, ...], outputs: tuple[int, ...]) -> NMSparse:
    """The entries of `x` (an array, or codes whose zero means zero) where `mask` is True, `n` of every `m`.

    Args:
      x: the weight; `Packed` codes stay packed.
      mask: bool, the shape of the weight, at most `n` ones in every group.
      n: values of a group.
      m: size of a group, at most 256: neighbours along the last of the input axes, which run fastest.
      inputs: axes of the weight that are the rows of the matrix.
      outputs: axes that are its columns.

    Raises:
      ValueError: n or m out of range, axes that are not all axes once, or (when its values are known) a mask that keeps
        more than `n` of a group.
    """
    checks.positive_int("m", m)
    checks.in_range("m", m, 1, 256)
    checks.positive_int("n", n)
    checks.in_range("n", n, 1, m)
    view = MatrixView.of(tuple(mask.shape), inputs, outputs)
    grouped = lambda v: _grouped(view.rows_of(v), m)  # noqa: E731
    kept = grouped(jnp.asarray(mask))
    if checks.is_concrete(mask) and (most := int(jnp.max(jnp.sum(kept, axis=1), initial=0))) > n:
        raise ValueError(f"mask keeps {most} of a group of {m} inputs; at most n = {n} can be stored.")
    places = jnp.argsort(~kept, axis=1, stable=True)[:, :n]  # the kept entries in order, then removed ones
    held = jnp.where(kept, grouped(verbs.dense(x)), 0)
    values = jnp.moveaxis(jnp.take_along_axis(held, places, axis=1), 1, 0)
    codes = x.value if isinstance(x, Permuted) else x
    if isinstance(codes, packed.Packed):
        values = packed.pack_codes(values, codes.bits, codes.low)
    return NMSparse(values, _pack_places(jnp.moveaxis(places, 1, 0), m), m, *view)


def _grouped(matrix: Array, m: int) -> Array:
    """`[groups, m, columns]`, padded at the end."""
    return jnp.pad(matrix, ((0, -matrix.shape[0] % m), (0, 0))).reshape(-1, m, matrix.shape[1])


def _pack_places(places: Array, m: int) -> packed.Packed:
    bits = form.bits_of(m)
    count = cell(bits)[0]
    places = jnp.pad(places, ((0, 0), (0, -places.shape[1] % count), (0, 0)))
    cells = places.reshape(places.shape[0], count, -1, places.shape[-1])
    low = -128 if bits == 8 else 0  # codes are int8
    return packed.pack_codes((cells + low).astype(jnp.int8), bits, low, axis=1)


@verbs.dense.register
def _(leaf: NMSparse) -> Array:
    def one(values: Array, data: Array) -> Array:
        places = form.unpacked(data, leaf.m, values.shape[1])
        return leaf.view.weight_of(form.expanded(values, places, leaf.m)[: leaf.view.matrix[0]])

    for _ in leaf.stack:
        one = jax.vmap(one)
    return one(verbs.dense(leaf.values), leaf.places.data)


@verbs.pack.register
def _(leaf: NMSparse) -> NMSparse:
    return dataclasses.replace(leaf, values=verbs.pack(leaf.values)) if verbs.is_leaf(leaf.values) else leaf


def choose_path(leaf: NMSparse, use: Use) -> paths.Choice:
    """The path of the product."""
    n, groups, columns = leaf.values.shape[-3:]
    return choice.choose(choice.Case(n, leaf.m, groups, columns, use.x.dtype))


@verbs.plan.register
def _(leaf: NMSparse, use: Use) -> verbs.Plan:
    if matrix_view.side(leaf.view, use, len(leaf.stack)) != "inputs":
        return verbs.Plan(None, "NMSparse: the contracted axes are not the inputs of its matrix", use.macs)
    chosen = choose_path(leaf, use)
    if chosen.path is None:
        return verbs.Plan(None, f"NMSparse: {chosen.why}", use.macs)
    return verbs.Plan(f"{leaf.n}:{leaf.m} matmul, {chosen.path}", f"{chosen.why}; expanded in the kernel", use.macs)


@verbs.contract.register
def _(leaf: NMSparse, use: Use, x: Array) -> Array:
    path = choose_path(leaf, use).path or "xla"
    values, data = verbs.dense(leaf.values), leaf.places.data
    values, data = (v.reshape(math.prod(leaf.stack), *v.shape[len(leaf.stack) :]) for v in (values, data))

    def product(i: int, x: Array) -> Array:
        x = jnp.pad(x, ((0, 0), (0, -x.shape[1] % leaf.m)))
        return nm_matmul(x, values[i], data[i], leaf.m, path=path, precision=use.params["precision"])

    return matrix_view.multiply(leaf.view, use, x, product, len(leaf.stack))


def _replaced(leaf: NMSparse, view: MatrixView | None) -> NMSparse | None:
    if view is None:
        return None
    return dataclasses.replace(leaf, size=view.size, columns=view.columns, order=view.order)


@verbs.transpose.register
def _(leaf: NMSparse, axes: tuple[int, ...]) -> NMSparse | None:
    """Only the note on the order changes."""
    return _replaced(leaf, leaf.view.transposed(axes, len(leaf.stack)))


@verbs.reshape.register
def _(leaf: NMSparse, shape: tuple[int, ...]) -> NMSparse | None:
    return None if leaf.stack else _replaced(leaf, leaf.view.reshaped(shape))


@verbs.astype.register
def _(leaf: NMSparse, dtype: Any) -> NMSparse | None:
    values = verbs.astype(leaf.values, dtype) if verbs.is_leaf(leaf.values) else leaf.values.astype(dtype)
    return None if values is None else dataclasses.replace(leaf, values=values)


@verbs.sliceable.register
def _(leaf: NMSparse) -> bool:
    return bool(leaf.stack) and verbs.sliceable(leaf.values)


@verbs.map_arrays.register
def _(leaf: NMSparse, fn) -> NMSparse:
    return dataclasses.replace(leaf, values=verbs.map_arrays(leaf.values, fn))
