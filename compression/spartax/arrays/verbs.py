"""What can be asked of a compressed weight: one open `singledispatch` function per verb.

`dense(leaf)` is the ground truth of what a leaf means; every other verb is tested against it. A new leaf registers the
verbs it can do better than by becoming dense; all others fall back, which is always right.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from spartax.arrays.use import Use
from spartax.records import Array, Params


class Leaf:
    """Marker of compressed weights: frozen pytree dataclasses that look like an array from outside.

    Subclasses are final and give `shape` and `dtype` of the dense weight they stand for. Children may carry extra
    leading axes (a stack of layers): `shape` then shows them too, so that slicing every child slices the leaf.
    """

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the dense weight."""
        raise NotImplementedError

    @property
    def dtype(self) -> np.dtype:
        """Dtype of the dense weight."""
        raise NotImplementedError

    @property
    def ndim(self) -> int:
        """Number of axes of the dense weight."""
        return len(self.shape)


class Plan(NamedTuple):
    """How one use of a leaf will be computed.

    Attributes:
      kernel: name of the fast path, or None when the leaf is made dense.
      why: one phrase for people.
      macs: multiply-adds of this use, for the whole batch.
    """

    kernel: str | None
    why: str
    macs: int


def is_leaf(x: Any) -> bool:
    """Whether `x` is a compressed weight (for `is_leaf=` of `jax.tree`)."""
    return isinstance(x, Leaf)


@functools.singledispatch
def dense(tree: Params) -> Any:
    """The array that a leaf stands for; on a tree, the same tree with every compressed leaf made dense.

    Example:
      >>> import jax.numpy as jnp
      >>> import spartax as sx
      >>> sx.dense({"kernel": sx.Masked(jnp.array([1.0, 2.0]), jnp.array([True, False]))})["kernel"].tolist()
      [1.0, 0.0]
    """
    return jax.tree.map(lambda x: dense(x) if is_leaf(x) else x, tree, is_leaf=is_leaf)


@functools.singledispatch
def pack(tree: Params) -> Any:
    """The smallest exact storage of a leaf; on a tree, of every leaf in it. `dense` does not change.

    Example:
      >>> import jax.numpy as jnp
      >>> import spartax as sx
      >>> masked = sx.Masked(jnp.arange(8.0), jnp.arange(8) == 7)  # one entry of eight is kept
      >>> sx.nbytes(masked), sx.nbytes(sx.pack(masked))  # 32 + 8; 4 for the value and one bit an entry
      (40, 5)
      >>> sx.dense(sx.pack(masked)).tolist()
      [0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 7.0]
    """
    return jax.tree.map(lambda x: pack(x) if is_leaf(x) else x, tree, is_leaf=is_leaf)


def nbytes(tree: Params) -> int:
    """Exact bytes of all arrays in a leaf or tree as they stand: values, masks, codes, scales, factors.

    Call `pack` first for the size on disk. Works on shapes alone (`jax.eval_shape` results).
    """
    return sum(int(np.prod(x.shape)) * np.dtype(x.dtype).itemsize for x in jax.tree.leaves(tree))


def matmul(leaf: Any, x: Array) -> Array:
    """`x @ dense(leaf)` by the leaf's own rule: `x [..., I]`, leaf `[I, *O]` -> `[..., *O]`."""
    return product(leaf, Use.of_dot(leaf, x, (((x.ndim - 1,), (0,)), ((), ()))), x)


def product(weight: Any, use: Use, x: Array) -> Array:
    """The result of `use` with this array or leaf: by the leaf's own rule where it has one, else with it dense."""
    if not is_leaf(weight):
        return use.apply(weight, x)
    return contract(weight, use, x) if plan(weight, use).kernel else use.apply(dense(weight), x)


@functools.singledispatch
def plan(leaf: Any, use: Use) -> Plan:
    """How `contract(leaf, use, x)` would be computed and at what cost; the default is the dense way."""
    return Plan(None, f"{type(leaf).__name__}: stored small, computed dense", use.macs)


@functools.singledispatch
def contract(leaf: Any, use: Use, x: Array) -> Array:
    """The result of `use` with this leaf as its weight; called only when `plan` names a kernel."""
    return use.apply(dense(leaf), x)


@functools.singledispatch
def transpose(leaf: Any, axes: tuple[int, ...]) -> Any:
    """The leaf with its axes permuted, or None when that needs the dense weight."""
    return None


@functools.singledispatch
def reshape(leaf: Any, shape: tuple[int, ...]) -> Any:
    """The leaf reshaped, or None when that needs the dense weight."""
    return None


@functools.singledispatch
def astype(leaf: Any, dtype: Any) -> Any:
    """The leaf whose dense weight has another floating dtype, or None when that needs the dense weight."""
    return None


@functools.singledispatch
def within(leaf: Any, fn: Any) -> Any:
    """Of a leaf that does something to the activations it meets, the leaf of `fn(dense(leaf))`; None for all others.

    `fn` takes entries of the weight away, as a slice does, and leaves the others in their places.
    """
    return None


@functools.singledispatch
def take(leaf: Any, rows: Array) -> Any:
    """`dense(leaf)[rows]` along axis 0 without the rest of the table, or None when that needs the dense weight.

    `rows` are integers of any shape, already inside the table.
    """
    return None


@functools.singledispatch
def sliceable(leaf: Any) -> bool:
    """Whether slicing every child along axis 0 slices the dense weight along axis 0 (a stack of layers in `scan`)."""
    return not is_leaf(leaf)


@functools.singledispatch
def map_arrays(leaf: Any, fn: Any) -> Any:
    """The same leaf with `fn(array)` in place of each float array that holds weight values (not scales or masks).

    This is how a second method works inside the first: quantising a `Masked` quantises the weight under the mask,
    quantising a `LowRank` quantises both factors.
    """
    return fn(leaf)


def float_dtype(x: Any) -> np.dtype:
    """Dtype of an array or leaf."""
    return np.dtype(jnp.dtype(x.dtype))
