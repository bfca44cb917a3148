"""`otherwise`: a second factorization for the weights that the first one does not split."""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp

from spartax.records import Array, Factorization, Layout


def otherwise(first: Factorization, second: Factorization) -> Factorization:
    """The first factorization where it splits a weight, else the second.

    `otherwise(lowrank.tucker(), lowrank.svd())` splits convolution kernels with a window by Tucker-2, and 1 x 1 kernels
    and Dense layers by their SVD.
    """

    def of(weight: Array, layout: Layout) -> Factorization:
        return first if first.unfold(weight, layout) else second

    def unfold(weight: Array, layout: Layout) -> dict[str, Array]:
        return of(weight, layout).unfold(weight, layout)

    def build(weight: Array, layout: Layout, ranks: dict[str, int], statistics: Mapping[str, Array]) -> Any:
        own = of(weight, layout)
        return own.build(weight, layout, ranks, {need: statistics[need] for need in own.needs})

    def span(weight: Array, layout: Layout, statistics: Mapping[str, Array]) -> Array | None:
        own = of(weight, layout)
        return None if own.span is None else own.span(weight, layout, {need: statistics[need] for need in own.needs})

    def moving(weight: Array, layout: Layout, leaf: Any) -> Array:
        own = of(weight, layout)
        return jnp.zeros(()) if own.moving is None else own.moving(weight, layout, leaf)

    settles = first.moving is None and second.moving is None
    nested = first.nested and second.nested
    centred = first.centred or second.centred
    return Factorization(first.needs | second.needs, unfold, build, nested, span, None if settles else moving, centred)
