"""Low rank: many layers factorized in one program; factored layers against dense ones, and the rank where they meet."""

import functools
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

import spartax as sx
from experiments.bench.row import Row, compare
from spartax import lowrank, measure
from spartax.records import Evidence, Factorization, Layout

METHODS: dict[str, Factorization] = {"gram_svd": lowrank.gram_svd(), "randomized_svd": lowrank.randomized_svd()}
SHAPES = ((1024, 1024), (1024, 4096), (4096, 4096))  # inputs, outputs


def rows(quick: bool) -> list[Row]:
    return [
        *factorizing(quick),
        *layers(quick),
        *(break_even(shape, quick) for shape in SHAPES[: 1 if quick else None]),
    ]


def factorizing(quick: bool) -> list[Row]:
    """All layers of one shape at once, once compiled, against NumPy's SVD of two of them, scaled to all."""
    count, rows, columns, rank = (4, 32, 64, 8) if quick else (50, 1024, 4096, 128)
    keys = jax.random.split(jax.random.key(0), count)
    weights = {str(i): jax.random.normal(key, (rows, columns)) for i, key in enumerate(keys)}
    given = Evidence({path: Layout((0,), (1,)) for path in weights}, key=jax.random.key(1))
    two = [np.asarray(weights[path]) for path in ("0", "1")]
    base = _scaled(_timed(lambda: [np.linalg.svd(w, full_matrices=False) for w in two]), count / 2)
    found = []
    for name, method in METHODS.items():
        init = lowrank.factorize(method, lowrank.fixed(rank)).init
        init(weights, given)  # compiles
        taken = _timed(lambda init=init: jax.block_until_ready(jax.tree.leaves(init(weights, given)[0])))
        note = f"one program, run once; NumPy: 2 layers, times {count / 2:g}"
        what = f"{count} layers of {rows} x {columns} at rank {rank}: {name}"
        found.append(Row(what, "NumPy SVD, layer by layer", taken, base, note))
    return found


def _timed(function: Callable) -> measure.Latency:
    start = time.perf_counter()
    function()
    taken = time.perf_counter() - start
    return measure.Latency(taken, taken, taken, 1)


def _scaled(taken: measure.Latency, factor: float) -> measure.Latency:
    return measure.Latency(factor * taken.median, factor * taken.low, factor * taken.high, taken.repeats)


def layers(quick: bool) -> list[Row]:
    """A square layer at three ranks."""
    size, batch = (256, 16) if quick else (4096, 256)
    found = []
    for part in (8, 4, 2):
        note = f"bound {part / 2:.1f}x by multiply-adds" + ("; target: at least 3x" if part == 8 else "")
        pair = _pair((size, size), size // part, batch)
        found.append(compare(f"{size} x {size}, batch {batch}", pair, repeats=3 if quick else 20, note=note))
    return found


def break_even(shape: tuple[int, int], quick: bool) -> Row:
    """The largest rank, in sixteenths of the smaller side, at which the factored layer is faster than the dense one."""
    batch, repeats = (4, 3) if quick else (256, 12)
    step = min(shape) // 16
    low, high, best = 0, 16, None
    while high - low > 1:
        middle = (low + high) // 2
        row = compare(f"{shape[0]} x {shape[1]}, batch {batch}", _pair(shape, middle * step, batch), repeats=repeats)
        low, high, best = (middle, high, row) if row.speedup > 1 else (low, middle, best or row)
    even = f"{low * step}" if low else f"below {step}"
    bound = shape[0] * shape[1] // sum(shape)
    note = f"break-even rank {even} to {high * step} on {jax.devices()[0].device_kind}; {bound} by multiply-adds"
    assert best is not None
    return best._replace(note=note)


def _pair(shape: tuple[int, int], rank: int, batch: int) -> dict[str, Callable[[], jax.Array]]:
    """Products with factors of this rank, and with the dense weight."""
    keys = jax.random.split(jax.random.key(0), 4)
    x, weight = jax.random.normal(keys[0], (batch, shape[0])), jax.random.normal(keys[1], shape)
    leaf = sx.LowRank(jax.random.normal(keys[2], (shape[0], rank)), jax.random.normal(keys[3], (rank, shape[1])))
    run = _product()
    return {f"rank {rank}": functools.partial(run, leaf, x), "dense float32": functools.partial(run, weight, x)}


@functools.cache
def _product() -> Callable:
    return sx.compressed(lambda w, x: jnp.matmul(x, w))
