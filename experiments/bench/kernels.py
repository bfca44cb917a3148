"""Products with compressed weights, by the path that is chosen here, against the dense product in the same dtype.

A square matrix, x of some rows; float32 on CPU, bfloat16 elsewhere. "moved MB" is the stored weight, x and the
result, each once. The convolution is asked to take the block-sparse kernel, on patches; by default it is computed
dense. "bound ms" is the roofline: the larger of those bytes over the bandwidth of a long sum and the
operations over the rate of a large dense product, both measured in the same run. "reached" is that bound over the time;
it passes 1 where the weight stays in a cache, or where integer instructions are faster than float ones. "temp MB" is
what the compiled program allocates for intermediates and the result.
"""

import functools
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import spartax as sx
from experiments.bench.row import Row, compare
from spartax import quantize
from spartax.arrays import block_sparse, nm_sparse, verbs
from spartax.kernels.groups import top_of_groups
from spartax.records import Array, Transform

Make = Callable[[Array], Any]


def _blocks(side: int, density: float) -> Make:
    def make(w: Array) -> sx.BlockSparse:
        count = w.shape[0] // side
        order = np.random.default_rng(0).permutation(count**2)
        kept = (order < round(density * count**2)).reshape(count, count)
        return block_sparse(w, jnp.asarray(np.kron(kept, np.ones((side, side), bool))), (side, side), (0,), (1,))

    return make


def _nm(w: Array) -> sx.NMSparse:
    return nm_sparse(w, top_of_groups(jnp.abs(w), 2, 4, 0), 2, 4, (0,), (1,))


def _by(*transforms: Transform) -> Make:
    return lambda w: sx.compress(_product, {"kernel": w}, *transforms, batches=[w]).params["kernel"]


def _low_rank(part: int) -> Make:
    def make(w: Array) -> sx.LowRank:
        keys, rank = jax.random.split(jax.random.key(2)), w.shape[0] // part
        return sx.LowRank(
            jax.random.normal(keys[0], (len(w), rank), w.dtype), jax.random.normal(keys[1], (rank, len(w)), w.dtype)
        )

    return make


def _product(params: dict[str, Any], x: Array) -> Array:
    return x @ params["kernel"]


def _rounded(bits: int, group: int | None = None) -> Transform:
    return quantize.quantize(quantize.integer(bits, group=group))


CASES: dict[str, Make] = {
    "128 x 128 blocks, 90 % sparse": _blocks(128, 0.1),
    "64 x 64 blocks, 90 % sparse": _blocks(64, 0.1),
    "32 x 32 blocks, 90 % sparse": _blocks(32, 0.1),
    "16 x 16 blocks, 90 % sparse": _blocks(16, 0.1),
    "64 x 64 blocks, 80 % sparse": _blocks(64, 0.2),
    "2:4": _nm,
    "int8 per channel": _by(_rounded(8)),
    "int4 per channel": _by(_rounded(4)),
    "int4 groups of 64": _by(_rounded(4, 64)),
    "int8 x int8": _by(_rounded(8), quantize.activations(8)),
    "rank of 1/8": _low_rank(8),
    "int4 + rank of 1/64": lambda w: sx.Sum((_by(_rounded(4))(w), _low_rank(64)(w))),
}
CONVOLUTION = "3 x 3 convolution, 64 x 64 blocks, 90 % sparse"
PASSES: dict[str, int] = {"forward": 1, "input gradient": 2, "weight gradient": 2}  # products that each takes


def rows(
    quick: bool,
    cases: Sequence[str] = ("",),
    size: int | None = None,
    batch: Sequence[int] = (1, 8, 256),
    passes: Sequence[str] = ("forward",),
) -> list[Row]:
    """Every case whose name contains one of these texts, at every batch, in every pass."""
    size = size or (256 if quick else 4096)
    kind = jnp.float32 if jax.default_backend() == "cpu" else jnp.bfloat16
    dense = jax.random.normal(jax.random.key(0), (size, size), kind)
    roof, runs, found = _roof(kind, quick), {name: _run(name) for name in passes}, []
    for name, make in CASES.items():
        if not any(part in name for part in cases):
            continue
        leaf = sx.pack(make(dense))
        for count in batch:
            x = jax.random.normal(jax.random.key(1), (count, size), kind)
            for what, run in runs.items():
                pair = {name: functools.partial(run, leaf, x), "dense": functools.partial(run, dense, x)}
                row = compare(f"{size} x {size}, batch {count}, {what}", pair, repeats=3 if quick else 9)
                use = verbs.Use.of_dot(leaf, x, (((1,), (0,)), ((), ())))
                found.append(_with_figures(row, leaf, use, PASSES[what], roof, _memory(run, leaf, x)))
    if any(part in CONVOLUTION for part in cases) and "forward" in passes:
        found += [_convolution(size // 16, count, kind, roof, quick) for count in batch]
    return found


def _convolution(channels: int, count: int, kind: Any, roof: tuple[float, float], quick: bool) -> Row:
    """Block-sparse by patches against dense, 16 x 16 positions of so many features; blocks have a quarter of them."""
    convolve = lambda w, x: jax.lax.conv_general_dilated(  # noqa: E731
        x, w, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    dense = jax.random.normal(jax.random.key(0), (3, 3, channels, channels), kind)
    x = jax.random.normal(jax.random.key(1), (count, 16, 16, channels), kind)
    side, grid = channels // 4, (36, 4)
    kept = (np.random.default_rng(0).permutation(144) < 14).reshape(grid)
    mask = jnp.asarray(np.kron(kept, np.ones((side, side), bool)).reshape(dense.shape))
    leaf, apply, plain = (
        block_sparse(dense, mask, (side, side), (0, 1, 2), (3,)),
        sx.compressed(convolve),
        jax.jit(convolve),
    )

    def by_patches() -> Array:
        with sx.kernels("xla"):
            return apply(leaf, x)

    name = f"{CONVOLUTION}, {channels} features, batch {count}"
    pair = {"by patches": by_patches, "dense": functools.partial(plain, dense, x)}
    row = compare(name, pair, repeats=3 if quick else 9)
    with sx.kernels("xla"):
        use = sx.inspect(convolve, leaf, x)[""].uses[0]
        return _with_figures(row, leaf, use, 1, roof, _memory(apply, leaf, x))


def _run(name: str) -> Callable[[Any, Array], Any]:
    """The jitted pass `(weight, x) -> ...`; gradients are those of the sum of squares."""
    forward = sx.compressed(lambda w, x: x @ w)
    if name == "forward":
        return forward
    loss = lambda w, x: jnp.sum(forward(w, x) ** 2)  # noqa: E731
    return jax.jit(jax.grad(loss, argnums=0 if name == "weight gradient" else 1, allow_int=True))


def _roof(kind: Any, quick: bool) -> tuple[float, float]:
    """Bytes a second of a long sum of integers, operations a second of a large dense product."""
    long = jnp.ones((64, 2**14 if quick else 2**20), jnp.int32)
    rows, size = (32, 128) if quick else (2048, 4096)
    x, w = jnp.ones((rows, size), kind), jnp.ones((size, size), kind)
    read, multiply = jax.jit(lambda v: jnp.sum(v, 1)), jax.jit(jnp.matmul)
    seconds = 0.0 if quick else 2.0
    operations = 2 * rows * size**2
    return long.nbytes / _best(lambda: read(long), seconds), operations / _best(lambda: multiply(x, w), seconds)


def _best(run: Callable[[], Any], seconds: float) -> float:
    """The fastest call of some seconds of calls: a limit, so that whatever disturbs it must not lower it."""
    times, end = [], time.perf_counter() + seconds
    while len(times) < 3 or time.perf_counter() < end:
        start = time.perf_counter()
        jax.block_until_ready(run())
        times.append(time.perf_counter() - start)
    return min(times)


def _memory(run: Callable, leaf: Any, x: Array) -> int:
    found: Any = jax.jit(run).lower(leaf, x).compile().memory_analysis()
    return found.temp_size_in_bytes + found.output_size_in_bytes


def _with_figures(row: Row, leaf: Any, use: verbs.Use, products: int, roof: tuple[float, float], memory: int) -> Row:
    plan = verbs.plan(leaf, use)
    moved = products * (sx.nbytes(leaf) + sx.nbytes([use.x, use.out]))
    operations = 2 * plan.macs * products
    bound = max(moved / roof[0], operations / roof[1])
    figures = {
        "moved MB": moved / 1e6,
        "GFLOP": operations / 1e9,
        "bound ms": 1e3 * bound,
        "reached": bound / row.time.median,
        "temp MB": memory / 1e6,
    }
    note = f"{plan.kernel or 'computed dense'}; {roof[0] / 1e9:.3g} GB/s, {roof[1] / 1e9:.3g} GFLOP/s"
    return row._replace(figures=figures, note=note)
