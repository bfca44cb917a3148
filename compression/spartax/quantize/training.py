"""What the methods that quantize inside training share: putting leaves around weights, and finding them again."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from spartax import tree
from spartax.arrays import FakeInputs, FakeQuantized, Masked, dense
from spartax.arrays.verbs import map_arrays
from spartax.quantize.parts import parts
from spartax.quantize.report import relative, squares
from spartax.records import Array, Evidence, Layout, Params, Path

# (float array, its layout, where a mask keeps its entries or None) -> its quantizer
Make = Callable[[Array, Layout, Array | None], Any]


def fake_weights(params: Params, evidence: Evidence, make: Make) -> Params:
    """The params whose selected weights, or the float arrays inside of them, are `FakeQuantized`."""
    return tree.replace(
        params, {p: _fake(p, w, evidence, make) for p, w in tree.pick(params, evidence.layouts).items()}
    )


def _fake(path: Path, weight: Any, evidence: Evidence, make: Make) -> Any:
    try:
        layouts = iter([layout for _, layout in parts(weight, evidence.layouts[path])])
        return map_arrays(weight, lambda x: FakeQuantized(x, make(x, next(layouts), kept_of(weight, x))))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def fake_inputs(params: Params, evidence: Evidence, make: Callable[[tuple[int, ...]], Any]) -> Params:
    """The params whose selected weights round their activations; `make` gets the shape `[*stack]` of a quantizer."""
    weights = tree.pick(params, evidence.layouts)
    stacks = {p: tuple(w.shape[a] for a in evidence.layouts[p].stack) for p, w in weights.items()}
    return tree.replace(params, {p: FakeInputs(w, make(stacks[p])) for p, w in weights.items()})


def shared_shape(shape: tuple[int, ...], layout: Layout, channel: bool = False) -> tuple[int, ...]:
    """Shape of a parameter of which each layer of a stack, and each output if `channel`, has its own."""
    own = {*layout.stack, *(layout.outputs if channel else ())}
    return tuple(n if axis in own else 1 for axis, n in enumerate(shape))


def kept_of(weight: Any, x: Array) -> Array | None:
    """The mask around an array inside a weight, True = kept; None if there is none, or the array is but a factor."""
    masks = [m for m in jax.tree.leaves(weight, is_leaf=_is_masked) if _is_masked(m) and m.shape == weight.shape]
    return dense(masks[0].mask) if masks and x.shape == weight.shape else None


def _is_masked(x: Any) -> bool:
    return isinstance(x, Masked)


def mean_size(weight: Array, shape: tuple[int, ...], kept: Array | None = None) -> Array:
    """`E|w|` over the entries that share a parameter of this shape and are kept, float32."""
    axes = tuple(a for a, n in enumerate(shape) if n == 1)
    return jnp.mean(jnp.abs(weight.astype(jnp.float32)), axes, keepdims=True, where=_some(kept, axes))


def _some(kept: Array | None, axes: tuple[int, ...]) -> Array | None:
    """The entries a mean is taken over: all of them where none is kept."""
    return None if kept is None else kept | ~jnp.any(kept, axes, keepdims=True)


def not_too_long(step: Array, weight: Array, kept: Array | None, widths: tuple[int, ...]) -> Array:
    """The step, where a mask is its half, quarter or eighth if that loses less: what a mask keeps is seldom near zero.

    Args:
      step: of the narrowest width, spreads over the weight; each bit more halves it.
      weight: floats.
      kept: where a mask keeps its entries; None leaves the step.
      widths: bits of the codes; what is lost is the sum of the errors (norms) at each.
    """
    if kept is None:
        return step
    axes = tuple(a for a, n in enumerate(step.shape) if n == 1)
    ratio = weight.astype(jnp.float32) / step

    def lost(cut: Array) -> Array:
        total = jnp.zeros(step.shape)
        for bits in widths:
            finer, half = cut * 2 ** (bits - min(widths)), 2 ** (bits - 1)
            near = jnp.clip(jnp.round(ratio * finer), -half, half - 1) / finer
            total += jnp.sqrt(jnp.sum((near - ratio) ** 2, axes, keepdims=True, where=kept))
        return total

    cuts = jnp.array([1.0, 2.0, 4.0, 8.0])
    return step / cuts[jnp.argmin(lax.map(lost, cuts), axis=0)]


def found(path: Path, weight: Any, kind: type, quantizer: type) -> list[Any]:
    """The leaves of this kind with such a quantizer in a weight, which a later transform may have wrapped.

    Raises:
      ValueError: there are none.
    """
    mine = _is(kind, quantizer)
    leaves = [x for x in jax.tree.leaves(weight, is_leaf=mine) if mine(x)]
    if not leaves:
        raise ValueError(f"{path} holds no {quantizer.__name__}; call init of this transform first.")
    return leaves


def exchanged(weight: Any, kind: type, quantizer: type, new: Callable[[Any], Any]) -> Any:
    """The weight with `new(quantizer)` in place of each quantizer that `found` would find."""
    mine = _is(kind, quantizer)
    put = lambda x: dataclasses.replace(x, quantizer=new(x.quantizer)) if mine(x) else x  # noqa: E731
    return jax.tree.map(put, weight, is_leaf=mine)


def _is(kind: type, quantizer: type) -> Callable[[Any], bool]:
    return lambda x: isinstance(x, kind) and isinstance(x.quantizer, quantizer)


def relative_error(leaves: list[FakeQuantized], weight: Any) -> float:
    """`|dense - weight| / |weight|`, Frobenius norms over all arrays together, of what a mask around them keeps.

    Of weights of any scale; 0 of zeros.

    Args:
      leaves: of the weight.
      weight: with whatever is around them.
    """
    return relative(_squares(leaf, kept_of(weight, leaf.weight)) for leaf in leaves)


@jax.jit
def _squares(leaf: FakeQuantized, kept: Array | None) -> tuple[Array, Array, Array]:
    weight = leaf.weight.astype(jnp.float32)
    return squares(dense(leaf).astype(jnp.float32) - weight, weight, kept)
