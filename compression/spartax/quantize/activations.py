"""`activations`: what meets the selected weights is rounded to integers, by scales of calibration or of the moment."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from spartax import catalog, checks, tree
from spartax.arrays import QuantizedInputs
from spartax.kernels.uniform import BITS, Uniform
from spartax.quantize.observers._observer import Observer, Seen
from spartax.records import Array, Evidence, Info, Layout, Params, Path, Transform


def activations(
    bits: int = 8, symmetric: bool = True, per: str = "token", observer: Observer | None = None
) -> Transform:
    """Round every activation that meets a selected weight to `bits`: the weight becomes `QuantizedInputs(weight)`.

    Chain it after (or before) `quantize.quantize`: int8 codes on both sides are multiplied as integers where the
    product is one of matrices; other weights and convolutions of several taps meet the rounded activation as floats.

    Args:
      bits: 2 to 8.
      symmetric: zero is code 0; False suits activations that are never negative: they get all `2**bits` codes.
      per: "token" or "tensor", the entries that share a dynamic scale. "token" is each row of a dot product and each
        image of a convolution; with "tensor" an example's result depends on the rest of its batch.
      observer: None reads dynamic scales off every activation. `quantize.min_max()`, `.quantile()`,
        `.squared_error()` or `.kl()` makes static ones for the whole tensor from the calibration batches, of the
        network as it was before compression; larger activations are clipped, and have no gradient there.

    Raises:
      ValueError: a bad value; at use, inputs that are rounded already, or that calibration has not seen.
    """
    checks.one_of("bits", bits, BITS)
    checks.one_of("per", per, ("token", "tensor"))
    if observer is not None and not isinstance(observer, Observer):
        raise ValueError(f"observer must be one such as quantize.min_max(), or None; got {observer!r}.")
    grid = Uniform(bits, bool(symmetric))

    def init(params: Params, evidence: Evidence) -> tuple[Params, dict[Path, int]]:
        weights = tree.pick(params, evidence.layouts)
        start = {path: _start(path, w, evidence.layouts[path], grid, per, observer) for path, w in weights.items()}
        return tree.replace(params, start), {}

    def update(params: Params, state: dict[Path, int], evidence: Evidence) -> tuple[Params, dict[Path, int], Info]:
        about = {"method": "activations", "bits": bits, "symmetric": grid.symmetric}
        if observer is None:
            return params, state, {path: {**about, "scales": f"dynamic per {per}"} for path in evidence.layouts}
        new, info = {}, {}
        for path, weight in tree.pick(params, evidence.layouts).items():
            low, high = _each(*_seen(path, observer, evidence), grid, observer)
            scale, zero = grid.fit(low, high)
            own = {"scale": scale, "zero": None if zero is None else zero.astype(jnp.int8)}
            fill = lambda x: dataclasses.replace(x, **own) if _is_mine(x) else x  # noqa: B023, E731
            new[path] = jax.tree.map(fill, weight, is_leaf=_is_mine)
            info[path] = {**about, "scales": "static", "low": float(jnp.min(low)), "high": float(jnp.max(high))}
        return tree.replace(params, new), state, info

    return Transform(frozenset() if observer is None else observer.needs, init, update)


def _is_mine(x: Any) -> bool:
    return isinstance(x, QuantizedInputs)


def _start(
    path: Path, weight: Any, layout: Layout, grid: Uniform, per: str, observer: Observer | None
) -> QuantizedInputs:
    """The final structure, with scales of one."""
    if _is_mine(weight):
        raise ValueError(f"{path}: its inputs are rounded already; once is enough.")
    if observer is None:
        return QuantizedInputs(weight, None, None, grid.bits, grid.symmetric, per)
    if layout.stack != tuple(range(len(layout.stack))):
        raise ValueError(f"{path}: the stack of weights is not in front; use dynamic scales (observer=None) for it.")
    shape = tuple(weight.shape[a] for a in layout.stack)
    zero = None if grid.symmetric else jnp.asarray(np.zeros(shape, np.int8))
    return QuantizedInputs(weight, jnp.asarray(np.ones(shape, np.float32)), zero, grid.bits, grid.symmetric, per)


def _seen(path: Path, observer: Observer, evidence: Evidence) -> tuple[Array, Array | None]:
    """Ends `[*stack, 2]` and, where they are needed, counts `[*stack, bins]` of the inputs of a weight."""
    limits, counts = (
        catalog.need(name, evidence).get(path) if name in observer.needs else None for name in ("ranges", "histograms")
    )
    dead = "" if limits is None else checks.dead_layer(limits, limits.ndim - 1)
    if limits is None or dead is not None:
        raise ValueError(
            f"{path}{dead}: calibration saw no input but zeros, so no static scale fits; use other batches, leave it "
            "out by the rule, or use dynamic scales (observer=None)."
        )
    return limits, counts


@jax.jit(static_argnums=(2, 3))
def _each(limits: Array, counts: Array | None, grid: Uniform, observer: Observer) -> tuple[Array, Array]:
    """The range of every layer of a stack."""

    def fit(ends: Array, counts: Array | None) -> tuple[Array, Array]:
        return observer.fit(Seen(ends[0], ends[1], counts), grid)

    for _ in range(limits.ndim - 1):
        fit = jax.vmap(fit, in_axes=(0, None if counts is None else 0))
    return fit(limits, counts)
