"""Global threshold: the k-th largest of all scores by counting, against a sort."""

import functools

import jax
import jax.numpy as jnp

from experiments.bench.row import Row, compare
from spartax.kernels import threshold


def rows(quick: bool) -> list[Row]:
    size = 30_000 if quick else 30_000_000
    scores = jnp.abs(jax.random.normal(jax.random.key(0), (size,)))
    kept = size // 10
    sort = jax.jit(lambda s: jnp.sort(s)[-kept])
    pair = {
        "counting": lambda: threshold.kth_largest([scores], kept).value,
        "jnp.sort": functools.partial(sort, scores),
    }
    assert pair["counting"]() == pair["jnp.sort"]()
    whole = jax.jit(lambda s: threshold.kth_largest([s], kept).value)
    memory = whole.lower(scores).compile().memory_analysis()
    extra = f"{memory.temp_size_in_bytes / 1e6:.3g} MB" if memory else "unknown memory"
    note = f"{extra} beside {4 * size / 1e6:.3g} MB of scores; target: at least 10x"
    return [compare(f"{size / 1e6:g} M scores", pair, repeats=3, warmups=1, note=note)]
