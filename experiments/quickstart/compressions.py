"""The eight compressions, all one-shot: nothing is trained afterwards."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from spartax import lowrank, prune, quantize
from spartax.compress import compress
from spartax.quantize import integer
from spartax.records import Params

GROUP = 16


class Compression(NamedTuple):
    """One way to compress.

    Attributes:
      name: as shown in the table.
      options: as recorded.
      make: `(apply_fn, params, batch, key) -> params` with compressed leaves.
      role: `"baseline"` or `"method"`.
    """

    name: str
    options: dict[str, Any]
    make: Callable[..., Params]
    role: str = "method"


def all_compressions() -> list[Compression]:
    """Random, two magnitudes, low rank, int8, int4, and two compositions."""
    random, magnitude = prune.random(), prune.magnitude()
    int8, int4 = quantize.quantize(integer(bits=8)), quantize.quantize(integer(bits=4))
    svd = lowrank.svd()
    return [
        Compression(
            "random 90 %",
            {"criterion": "random", "allocation": "uniform", "sparsity": 0.9},
            _apply(prune.prune(random, 0.9, prune.uniform())),
            "baseline",
        ),
        Compression(
            "magnitude 90 %, per layer",
            {"criterion": "magnitude", "allocation": "uniform", "sparsity": 0.9},
            _apply(prune.prune(magnitude, 0.9, prune.uniform())),
        ),
        Compression(
            "magnitude 90 %, global",
            {"criterion": "magnitude", "allocation": "pooled", "sparsity": 0.9},
            _apply(prune.prune(magnitude, 0.9, prune.pooled())),
        ),
        Compression(
            "low rank, 25 % of bytes",
            {"factorization": "svd", "ranks": "byte_budget", "ratio": 0.25},
            _apply(lowrank.factorize(svd, lowrank.byte_budget(0.25))),
        ),
        Compression("int8", {"bits": 8, "group": None}, _apply(int8)),
        Compression(f"int4, groups of {GROUP}", {"bits": 4, "group": GROUP}, _grouped_int4),
        Compression(
            "int4 + rank 2",
            {"bits": 4, "group": None, "compensate": "svd", "rank": 2},
            _apply(int4, lowrank.compensate(svd, lowrank.fixed(2))),
        ),
        Compression(
            "magnitude 50 %, int8",
            {"criterion": "magnitude", "allocation": "pooled", "sparsity": 0.5, "bits": 8},
            _apply(prune.prune(magnitude, 0.5, prune.pooled()), int8),
        ),
    ]


def _apply(*transforms: Any) -> Callable[..., Params]:
    def make(apply_fn: Any, params: Params, batch: jax.ShapeDtypeStruct, key: jax.Array) -> Params:
        return compress(apply_fn, params, *transforms, batches=[batch], key=key).params

    return make


def _grouped_int4(apply_fn: Any, params: Params, batch: jax.ShapeDtypeStruct, key: jax.Array) -> Params:
    """Groups along the input axis where they divide it, one scale for each output channel in the other layers."""
    fits = lambda path, weight: weight.shape[-2] % GROUP == 0  # noqa: E731
    kernels = [w for w in jax.tree.leaves(params) if w.ndim > 1]
    for group, rule in ((GROUP, fits), (None, lambda path, weight: not fits(path, weight))):
        if any(rule("", w) for w in kernels):
            transform = quantize.quantize(integer(4, group))
            params = compress(apply_fn, params, transform, batches=[batch], key=key, rule=rule).params
    return params
