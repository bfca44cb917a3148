"""The compressions that are compared."""

from collections.abc import Callable, Sequence
from typing import Any

import jax

import spartax as sx
from experiments.quickstart.compressions import Compression
from spartax import lowrank, prune, quantize
from spartax.records import Factorization, Params, Transform

RATIOS = (1 / 2, 1 / 3, 1 / 4, 1 / 6)
RANK = 4  # of corrections


def all_methods(batches: Sequence[Any], ratios: Sequence[float] = RATIOS) -> list[Compression]:
    """Factorizations at every byte budget; corrections of codes and of 2:4 masks, beside what they correct.

    Args:
      batches: calibration images.
      ratios: shares of the dense bytes of the compressed weights.
    """
    budgets = [make for ratio in ratios for make in _at_budget(ratio, batches)]
    return budgets + [make for name, first in _starts().items() for make in _corrected(name, first, batches)]


def _at_budget(ratio: float, batches: Sequence[Any]) -> list[Compression]:
    steps: dict[str, tuple[Transform, ...]] = {}
    for rule, ranks in (("bytes", lowrank.byte_budget(ratio)), ("sensitivity", lowrank.sensitivity(ratio))):
        steps[f"svd by {rule}"] = (lowrank.factorize(lowrank.svd(), ranks),)
        steps[f"activation-weighted by {rule}"] = (lowrank.factorize(lowrank.activation_weighted(), ranks),)
        steps[f"whitened by {rule}"] = (lowrank.factorize(lowrank.whitened(), ranks),)
        steps[f"atomic features by {rule}"] = (lowrank.factorize(lowrank.atomic_features(), ranks), sx.correct_bias())
    made = [_compression(f"{name}, 1/{1 / ratio:.0f}", s, batches, {"ratio": ratio}) for name, s in steps.items()]
    tucker = Compression(f"tucker, 1/{1 / ratio:.0f}", {"ratio": ratio}, _tucker(ratio))
    return [*made, tucker]


def _compression(name: str, steps: Sequence[Transform], batches: Sequence[Any], options: dict) -> Compression:
    def make(apply_fn: Any, params: Params, batch: jax.ShapeDtypeStruct, key: jax.Array) -> Params:
        return sx.compress(apply_fn, params, *steps, batches=batches, key=key).params

    return Compression(name, options, make)


def _tucker(ratio: float) -> Callable[..., Params]:
    """Tucker of the convolutions and SVD of the rest, at the largest share of energy that fits the bytes."""

    def make(apply_fn: Any, params: Params, batch: jax.ShapeDtypeStruct, key: jax.Array) -> Params:
        low, high, best = 0.0, 1.0, None
        for _ in range(8):
            kept = (low + high) / 2
            steps = [
                (lowrank.factorize(_factorization(spatial), lowrank.energy(kept)), _is_spatial(spatial))
                for spatial in (True, False)
            ]
            made = params
            for step, rule in steps:
                made = sx.compress(apply_fn, made, step, batches=[batch], rule=rule).params
            fits = sx.nbytes(made) <= ratio * sx.nbytes(params)
            low, high, best = (kept, high, made) if fits else (low, kept, best)
        if best is None:
            raise ValueError(f"ratio {ratio:.3g} is too small for Tucker: no share of energy fits.")
        return best

    return make


def _factorization(spatial: bool) -> Factorization:
    return lowrank.tucker() if spatial else lowrank.svd()


def _is_spatial(spatial: bool) -> Callable[[str, Any], bool]:
    return lambda path, weight: (weight.ndim == 4 and weight.shape[0] > 1) == spatial


def _starts() -> dict[str, Transform]:
    return {
        "int4": quantize.quantize(quantize.integer(4)),
        "int3": quantize.quantize(quantize.integer(3)),
        "2:4": prune.prune(prune.magnitude(), pattern=prune.n_of_m(2, 4)),
    }


def _corrected(name: str, first: Transform, batches: Sequence[Any]) -> list[Compression]:
    corrections = {
        name: (first,),
        f"{name} + SVD {RANK}": (first, lowrank.compensate(lowrank.svd(), lowrank.fixed(RANK))),
        f"{name} + EoRA {RANK}": (first, lowrank.compensate(lowrank.whitened(), lowrank.fixed(RANK))),
    }
    return [_fitting(label, steps, batches) for label, steps in corrections.items()]


def _fitting(name: str, steps: Sequence[Transform], batches: Sequence[Any]) -> Compression:
    """2:4 needs an input axis that 4 divides, which the first convolution has not."""

    def make(apply_fn: Any, params: Params, batch: jax.ShapeDtypeStruct, key: jax.Array) -> Params:
        rule = lambda path, weight: weight.shape[-2] % 4 == 0  # noqa: E731
        return sx.compress(apply_fn, params, *steps, batches=batches, key=key, rule=rule).params

    return Compression(name, {"rank": RANK}, make)
