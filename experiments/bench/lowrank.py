"""Low rank: a factored layer against the dense one."""

import functools

import jax

import spartax as sx
from experiments.bench.row import Row, compare


def rows(quick: bool) -> list[Row]:
    size, batch = (256, 16) if quick else (4096, 256)
    keys = jax.random.split(jax.random.key(0), 4)
    x, weight = jax.random.normal(keys[0], (batch, size)), jax.random.normal(keys[1], (size, size))
    run = sx.compressed(lambda w, x: x @ w)
    found = []
    for part in (8, 4, 2):
        left = jax.random.normal(keys[2], (size, size // part))
        leaf = sx.LowRank(left, jax.random.normal(keys[3], (size // part, size)))
        pair = {
            f"rank {size // part}": functools.partial(run, leaf, x),
            "dense float32": functools.partial(run, weight, x),
        }
        note = f"bound {part / 2:.1f}x by multiply-adds" + ("; target: at least 3x" if part == 8 else "")
        found.append(compare(f"{size} x {size}, batch {batch}", pair, repeats=3 if quick else 20, note=note))
    return found
