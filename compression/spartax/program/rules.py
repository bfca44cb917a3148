"""What each operation does when one of its operands is a compressed weight.

A rule takes the equation and its values and gives the outputs, or None when the weight must become dense. Contractions
go to the leaf's own kernel if it plans one; operations that only rearrange a weight keep it compressed.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend.core import primitives

from spartax.arrays import verbs
from spartax.arrays.use import Use
from spartax.records import Array

P = primitives


def read_use(eqn: Any, values: list[Any], trips: int) -> tuple[Use, Any, Any] | None:
    """(use, weight, activation) of a contraction with a weight in it, or None where no kernel could take it."""
    left = verbs.is_leaf(values[0])
    if eqn.primitive is P.conv_general_dilated_p and left:
        return None  # the weight is the image of this convolution
    weight, x = values if left else values[::-1]
    x = verbs.dense(x) if verbs.is_leaf(x) else x
    return Use.of(eqn.primitive, eqn.params, left, weight, x, trips), weight, x


def _contract(eqn: Any, values: list[Any], trips: int) -> Any:
    read = read_use(eqn, values, trips)
    if read is None:
        return None
    use, weight, x = read
    return verbs.contract(weight, use, x) if verbs.plan(weight, use).kernel else None


def _transpose(eqn: Any, values: list[Any], trips: int) -> Any:
    return verbs.transpose(values[0], tuple(eqn.params["permutation"]))


def _reshape(eqn: Any, values: list[Any], trips: int) -> Any:
    return None if eqn.params.get("dimensions") else verbs.reshape(values[0], tuple(eqn.params["new_sizes"]))


def _convert(eqn: Any, values: list[Any], trips: int) -> Any:
    dtype = eqn.params["new_dtype"]
    if values[0].dtype == dtype:
        return values[0]
    return verbs.astype(values[0], dtype) if jnp.issubdtype(dtype, jnp.floating) else None


def _same(eqn: Any, values: list[Any], trips: int) -> Any:
    """The operation says something about the array, not about its values (a copy, a sharding constraint)."""
    return values[0]


def _stop_gradient(eqn: Any, values: list[Any], trips: int) -> Any:
    return jax.tree.map(lax.stop_gradient, values[0])


def _squeeze(eqn: Any, values: list[Any], trips: int) -> Any:
    leaf = values[0]
    if tuple(eqn.params["dimensions"]) != (0,) or not verbs.sliceable(leaf):
        return verbs.within(leaf, lambda w: lax.squeeze(w, eqn.params["dimensions"]))
    return jax.tree.map(lambda v: v[0], leaf)


def _dynamic_slice(eqn: Any, values: list[Any], trips: int) -> Any:
    """One layer out of a stack: `w[i]` inside a loop."""
    leaf, start, *rest = values
    sizes = eqn.params["slice_sizes"]
    if tuple(sizes[1:]) != leaf.shape[1:] or not verbs.sliceable(leaf):
        return verbs.within(leaf, lambda w: lax.dynamic_slice(w, (start, *rest), sizes))
    start = jnp.clip(start, 0, leaf.shape[0] - sizes[0])  # as the equation does; the function below would count back
    return jax.tree.map(lambda v: lax.dynamic_slice_in_dim(v, start, sizes[0]), leaf)


def _slice(eqn: Any, values: list[Any], trips: int) -> Any:
    return _cut(values[0], *(eqn.params[name] for name in ("start_indices", "limit_indices", "strides")))


def _split(eqn: Any, values: list[Any], trips: int) -> Any:
    """A row of slices along one axis, as of the weights of queries, keys and values that are stored as one."""
    leaf, axis, start, parts = values[0], eqn.params["axis"], 0, []
    for size in map(int, eqn.params["sizes"]):
        low, high = [0] * leaf.ndim, list(leaf.shape)
        low[axis], high[axis], start = start, start + size, start + size
        parts.append(_cut(leaf, tuple(low), tuple(high), None))
    return None if any(part is None for part in parts) else parts


def _cut(leaf: Any, low: tuple[int, ...], high: tuple[int, ...], stride: tuple[int, ...] | None) -> Any:
    whole = tuple(low[1:]) == (0,) * (leaf.ndim - 1) and tuple(high[1:]) == leaf.shape[1:]
    if not whole or (stride and set(stride) != {1}) or not verbs.sliceable(leaf):
        return verbs.within(leaf, lambda w: lax.slice(w, low, high, stride))
    return jax.tree.map(lambda v: v[low[0] : high[0]], leaf)


class Lookup(NamedTuple):
    """Rows of a table that are looked up: their numbers, each within the table, and which of them were so as given."""

    ids: Array
    inside: Array

    def counts(self, rows: int) -> Array:
        """How often each of the rows of the table is looked up, `[rows]`; those outside it are not."""
        return jnp.zeros(rows).at[jnp.where(self.inside, self.ids, rows)].add(1, mode="drop")


def looked_up(eqn: Any, table: Any, starts: Array) -> Lookup | None:
    """The rows that a gather takes, `table[ids]`, or None where it takes anything but whole rows."""
    numbers = eqn.params["dimension_numbers"]
    ids_ndim = starts.ndim - 1
    rows_only = (
        tuple(numbers.start_index_map) == (0,)
        and tuple(numbers.collapsed_slice_dims) == (0,)
        and not numbers.operand_batching_dims
        and tuple(numbers.offset_dims) == tuple(range(ids_ndim, ids_ndim + table.ndim - 1))
        and tuple(eqn.params["slice_sizes"]) == (1, *table.shape[1:])
    )
    if not rows_only:
        return None
    ids = starts[..., 0]
    clipped = eqn.params["mode"] != lax.GatherScatterMode.FILL_OR_DROP
    inside = jnp.ones(ids.shape, bool) if clipped else (ids >= 0) & (ids < table.shape[0])
    return Lookup(jnp.clip(ids, 0, table.shape[0] - 1), inside)


def _gather(eqn: Any, values: list[Any], trips: int) -> Any:
    """Rows of a table, `table[ids]`: an embedding. Rows outside the table follow the mode of the gather."""
    table, starts = values
    found = looked_up(eqn, table, starts) if verbs.is_leaf(table) else None
    rows = None if found is None else verbs.take(table, found.ids)
    if found is None or rows is None:
        return None
    rows = verbs.dense(rows)
    if eqn.params["mode"] != lax.GatherScatterMode.FILL_OR_DROP:
        return rows
    fill = jnp.nan if eqn.params["fill_value"] is None else eqn.params["fill_value"]
    inside = found.inside.reshape(*found.inside.shape, *(1,) * (table.ndim - 1))
    return jnp.where(inside, rows, jnp.asarray(fill, rows.dtype))


CONTRACTIONS = (P.dot_general_p, P.conv_general_dilated_p)

RULES: dict[Any, Callable[[Any, list[Any], int], Any]] = {
    P.dot_general_p: _contract,
    P.conv_general_dilated_p: _contract,
    P.gather_p: _gather,
    P.transpose_p: _transpose,
    P.reshape_p: _reshape,
    P.convert_element_type_p: _convert,
    P.sharding_constraint_p: _same,
    P.copy_p: _same,
    P.stop_gradient_p: _stop_gradient,
    P.squeeze_p: _squeeze,
    P.dynamic_slice_p: _dynamic_slice,
    P.slice_p: _slice,
}


NAMED = {"split": _split}  # primitives that JAX has no public name of


def rule_of(eqn: Any) -> Callable[[Any, list[Any], int], Any] | None:
    """The rule of an equation, if it has one."""
    return RULES.get(eqn.primitive) or NAMED.get(eqn.primitive.name)


def apply_rule(eqn: Any, values: list[Any], trips: int) -> list[Any] | None:
    """The reading in which compressed weights meet their kernels: `visit` of `compressed`."""
    rule = rule_of(eqn)
    out = rule(eqn, values, trips) if rule else None
    return out if out is None or isinstance(out, list) else [out]
