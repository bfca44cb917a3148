"""`biases`: which vector the program adds to the output of which weight."""

import dataclasses
from collections import Counter
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from spartax import tree
from spartax.arrays import verbs
from spartax.arrays.use import Use
from spartax.program import rules, walk
from spartax.program.follow import Tagged, following, tagged
from spartax.program.inspect import inspect, trace
from spartax.records import Array, Params, Path


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class Origin(verbs.Leaf):
    """An activation that is the output of one weight, or a vector of the params on its way to be added.

    Attributes:
      value: the array.
      path: the weight, or the vector.
      axis: where its features are.
      is_output: whether it is an output.
    """

    value: Any
    path: Path = dataclasses.field(metadata={"static": True})
    axis: int = dataclasses.field(metadata={"static": True})
    is_output: bool = dataclasses.field(metadata={"static": True})

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the array."""
        return tuple(self.value.shape)

    @property
    def dtype(self) -> np.dtype:
        """Dtype of the array."""
        return verbs.float_dtype(self.value)


@verbs.dense.register
def _(leaf: Origin) -> Array:
    return leaf.value


def biases(apply_fn: Callable[..., Any], params: Params, *args: Any) -> dict[Path, Path]:
    """The bias of each weight: `{path of the weight: path of the vector}`, for weights that have one.

    A vector counts as the bias where the program adds it, along the output axis, to the result of a contraction (or to
    the rows that are looked up in a table) that nothing else reads, of a weight used once: changing the bias then is
    changing the output by a constant. Arguments as for `inspect`; nothing is computed.
    """
    named = {path: w for path, w in tree.weights(params).items() if tree.is_floating(w)}
    vectors = {path for path, w in named.items() if len(w.shape) == 1}
    pairs: dict[Path, Path] = {}
    reads: Counter[Path] = Counter()
    uses: Counter[Path] = Counter()

    def on_use(tag: Tagged, use: Use, x: Any) -> list[Any] | None:
        uses[tag.path] += 1
        conv = use.op == "conv_general_dilated"
        last = 0 if use.left else len(use.out.shape) - 1
        axis = use.params["dimension_numbers"].out_spec[1] if conv else last
        plain = len(use.layout.outputs) == 1 and not use.layout.stack
        return [Origin(use.apply(verbs.dense(tag), verbs.dense(x)), tag.path, axis, True)] if plain else None

    def on_rows(tag: Tagged, lookup: rules.Lookup, rows: Array) -> list[Any] | None:
        uses[tag.path] += tag.path in tables
        return [Origin(rows, tag.path, rows.ndim - 1, True)] if tag.path in tables and tag.ndim == 2 else None

    tables = {path for path, usage in inspect(apply_fn, params, *args).items() if usage.rows}
    follow = following(on_use, on_rows=on_rows)

    def visit(eqn: Any, values: list[Any], trips: int) -> list[Any] | None:
        origins = [v for v in values if isinstance(v, Origin)]
        if eqn.primitive in walk.DESCEND:
            return None
        if eqn.primitive is rules.P.add_p and len(origins) == 2:
            output, vector = sorted(origins, key=lambda o: not o.is_output)
            if output.is_output and not vector.is_output and output.axis == vector.axis:
                pairs[output.path] = vector.path
        moved = _moved(eqn, values, vectors)
        reads.update(o.path for o in origins if o.is_output and moved is None)
        return follow(eqn, values, trips) if moved is None else [moved]

    def run(params: Params, args: tuple) -> None:
        jaxpr, _ = trace(apply_fn, params, args)
        walk.walk(jaxpr, jax.tree.leaves((tagged(params, named), *args), is_leaf=verbs.is_leaf), visit)

    jax.eval_shape(run, params, args)
    return {path: bias for path, bias in pairs.items() if reads[path] == uses[path] == 1}


def _moved(eqn: Any, values: list[Any], vectors: set[Path]) -> Origin | None:
    """A vector spread over an activation, or an output cast or transposed; None for everything else."""
    value = values[0]
    if isinstance(value, Tagged) and value.path in vectors and value.ndim == 1:
        value = Origin(verbs.dense(value), value.path, 0, False)
    if not isinstance(value, Origin):
        return None
    if eqn.primitive is rules.P.convert_element_type_p:
        axis: int | None = value.axis
    elif eqn.primitive is rules.P.transpose_p:
        axis = eqn.params["permutation"].index(value.axis)
    elif value.is_output:
        return None
    elif eqn.primitive is rules.P.broadcast_in_dim_p:
        axis = eqn.params["broadcast_dimensions"][value.axis]
    elif eqn.primitive is rules.P.reshape_p:
        wide = [i for i, size in enumerate(eqn.params["new_sizes"]) if size == value.shape[value.axis]]
        axis = wide[0] if len(wide) == 1 else None
    else:
        return None
    return None if axis is None else Origin(walk.bind(eqn, [value.value])[0], value.path, axis, value.is_output)
