"""`correct_bias`: give back to the biases what compression took from the mean of each output."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from spartax import catalog, tree
from spartax.arrays import dense
from spartax.records import Array, Evidence, Info, Layout, Params, Path, Transform


def correct_bias() -> Transform:
    """`b <- b + E[x]^T (W - W')`, so that no output of a compressed weight `W'` is wrong on average.

    Bias correction of Nagel et al., Data-free quantization through weight equalization and bias correction, arXiv
    1906.04721, with the means of the calibration data; after `lowrank.factorize(lowrank.atomic_features(), ...)` it
    completes that method. Biases are found in the program: a weight whose output gets no bias of its own is left as it
    is, and `info` says so. `update` starts from the biases that `init` saw, so refreshing does not add up.

    Chain it after the transforms that compress; `compress` gathers the means from its batches.
    """

    def init(params: Params, evidence: Evidence) -> tuple[Params, dict[Path, Array]]:
        return params, tree.pick(params, catalog.need("biases", evidence).values())

    def update(params: Params, state: dict[Path, Array], evidence: Evidence) -> tuple[Params, dict[Path, Array], Info]:
        pairs, means = catalog.need("biases", evidence), catalog.need("means", evidence)
        originals = catalog.need("originals", evidence)
        new, info = {}, {}
        for path, weight in tree.pick(params, evidence.layouts).items():
            if path not in pairs:
                info[path] = {"method": "correct_bias", "skipped": "the program adds no bias to its output alone"}
                continue
            shift = _shift(originals[path], weight, means[path], evidence.layouts[path])
            new[pairs[path]] = state[pairs[path]] + shift.astype(state[pairs[path]].dtype)
            info[path] = {"method": "correct_bias", "bias": pairs[path], "largest": float(jnp.max(jnp.abs(shift)))}
        return tree.replace(params, new), state, info

    return Transform(frozenset({"originals", "means", "biases"}), init, update)


@jax.jit(static_argnums=3)
def _shift(original: Array, weight: Any, mean: Array, layout: Layout) -> Array:
    """`E[x]^T (W - W')`, one number for each output."""
    lost = (original - dense(weight)).astype(jnp.float32)
    rows = jnp.transpose(lost, (*layout.inputs, *layout.outputs)).reshape(-1, lost.shape[layout.outputs[0]])
    if layout.groups == 1:
        return jnp.dot(mean, rows, precision=lax.Precision.HIGHEST)
    each = rows.reshape(len(rows), layout.groups, -1)
    return jnp.einsum("gi,igo->go", mean, each, precision=lax.Precision.HIGHEST).reshape(-1)
