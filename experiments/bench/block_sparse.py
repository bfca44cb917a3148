"""Block-sparse products: the path that is chosen here against the dense float32 product, forward and gradients."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

import spartax as sx
from experiments.bench.row import Row, compare
from spartax.arrays import block_sparse, verbs

CASES = {  # (side of a block, density, batch): target speed-up, or None
    (128, 0.1, 256): 5.0,
    (64, 0.1, 256): 3.5,
    (32, 0.1, 256): 2.5,
    (16, 0.1, 256): None,
    (64, 0.2, 256): None,
    (64, 0.1, 1): None,
    (64, 0.1, 32): None,
    (64, 0.1, 1024): None,
}


def rows(quick: bool) -> list[Row]:
    size = 256 if quick else 4096
    dense = jax.random.normal(jax.random.key(0), (size, size))
    forward = sx.compressed(lambda w, x: x @ w)
    backward = jax.jit(jax.grad(lambda w, x: jnp.sum(forward(w, x) ** 2), argnums=1))
    training = jax.jit(jax.grad(lambda w, x: jnp.sum(forward(w, x) ** 2), allow_int=True))
    found = []
    for (side, density, batch), target in CASES.items():
        side, batch = (min(side, 32), min(batch, 8)) if quick else (side, batch)
        leaf = _leaf(dense, side, density)
        x = jax.random.normal(jax.random.key(1), (batch, size))
        runs = [("forward", forward)]
        if side == 64 and density == 0.1 and batch == 256:
            runs += [("gradient in x", backward), ("gradient in the weight", training)]
        for what, run in runs:
            pair = {
                f"{side} x {side} blocks": functools.partial(run, leaf, x),
                "dense float32": functools.partial(run, dense, x),
            }
            name = f"{what}, {size} x {size}, {1 - density:.0%} sparse, batch {batch}"
            found.append(compare(name, pair, repeats=3 if quick else 15, note=_note(leaf, x, target)))
    return found


def _leaf(dense: jax.Array, side: int, density: float) -> sx.BlockSparse:
    blocks = dense.shape[0] // side
    order = np.random.default_rng(0).permutation(blocks**2)
    kept = (order < round(density * blocks**2)).reshape(blocks, blocks)
    mask = jnp.asarray(np.kron(kept, np.ones((side, side), bool)))
    return block_sparse(dense, mask, (side, side), (0,), (1,))


def _note(leaf: sx.BlockSparse, x: jax.Array, target: float | None) -> str:
    """Path, bytes read and written, operations, and the most that either could gain over dense."""
    use = verbs.Use.of_dot(leaf, x, (((1,), (0,)), ((), ())))
    plan = verbs.plan(leaf, use)
    moving = 4 * (x.size + x.shape[0] * leaf.shape[1])
    dense_bytes, bytes_ = 4 * leaf.shape[0] * leaf.shape[1] + moving, sx.nbytes(leaf) + moving
    bound = f"bounds {dense_bytes / bytes_:.1f}x by bytes, {use.macs / plan.macs:.1f}x by multiply-adds"
    aim = f"; target {target}x" if target else ""
    return f"{plan.kernel or 'dense'}; {bytes_ / 1e6:.3g} MB, {2 * plan.macs / 1e9:.3g} GFLOP; {bound}{aim}"
