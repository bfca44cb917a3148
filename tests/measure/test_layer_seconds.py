"""`layer_seconds`: which operations are timed with which weights; the clock is a function of what is run."""

import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import spartax as sx
from spartax import measure, prune
from spartax.arrays import BlockSparse
from spartax.measure.latency import Latency

rng = np.random.default_rng(0)


def normal(*shape):
    return jnp.asarray(rng.standard_normal(shape), jnp.float32)


PARAMS = {"conv": normal(3, 3, 2, 8), "tied": normal(8, 8), "small": normal(4, 2), "bias": normal(8)}
X = normal(2, 4, 4, 2)
KEPT = (1.0, 0.5, 0.25, 0.01)


def apply(p, x):
    x = lax.conv_general_dilated(x, p["conv"], (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")) + p["bias"]
    x = jax.nn.relu(x) @ p["tied"]
    return (x.sum((1, 2)) @ p["tied"].T)[:, :4] @ p["small"]


@pytest.fixture
def timed(monkeypatch):
    """All that is timed, as (weight, input, call); seconds are kept entries times the examples or pixels they see."""
    seen = []

    def latency(functions, *, warmups, repeats):
        assert (warmups, repeats) == (3, 5)
        assert not seen  # all in turns, by one call
        found = {}
        for name, call in functions.items():
            weight, x = call.args
            seen.append((weight, x, call))
            found[name] = Latency(float(jnp.count_nonzero(sx.dense(weight)) * x[..., 0].size), 0.0, 9e9, 5)
        return found

    monkeypatch.setattr(sys.modules["spartax.measure.layer_seconds"], "latency", latency)
    return seen


def table(**options):
    return measure.layer_seconds(apply, PARAMS, X, **{"kept": KEPT, "warmups": 3, "repeats": 5} | options)


def test_seconds_of_blocks_by_hand(timed):
    """Blocks of 4 x 4: conv is 18 x 8, whose last row of tiles has two rows; a fraction is what is really kept."""
    found = table(pattern=prune.block((4, 4)), rule=lambda path, w: path != "conv")
    rows = 2 * 4 * 4 + 2  # both uses of the tied weight
    assert found == {
        "small": {1.0: 8 * 2},  # a single block is never half kept
        "tied": {1.0: 64 * rows, 0.5: 32 * rows, 0.25: 16 * rows},  # a hundredth becomes one block of four
    }
    both = [(weight, x, call) for weight, x, call in timed if weight.shape == (8, 8)]
    assert [isinstance(weight, BlockSparse) for weight, *_ in both] == 2 * [False, True, True]
    for matrix, use in ((lambda w: w, both[:3]), (jnp.transpose, both[3:])):
        for weight, x, call in use:
            np.testing.assert_allclose(call(), x @ matrix(sx.dense(weight)), rtol=1e-4, atol=1e-4)


def test_the_largest_entries_are_kept(timed):
    table(pattern=prune.block((4, 4)), kept=(0.25,), rule=lambda path, w: path == "tied")
    (leaf,) = {id(weight): weight for weight, *_ in timed if isinstance(weight, BlockSparse)}.values()
    tiles = np.asarray(PARAMS["tied"]).reshape(2, 4, 2, 4).swapaxes(1, 2).reshape(4, 4, 4)
    best = tiles[np.argmax(np.abs(tiles).mean((1, 2)))]
    np.testing.assert_array_equal(leaf.values[0], best)


def test_fewer_outputs_are_a_smaller_weight(timed):
    found = table(pattern=prune.channels(), form=measure.fewer_outputs, rule=lambda path, w: path == "conv")
    pixels = 2 * 4 * 4
    assert found == {"conv": {1.0: 144 * pixels, 0.5: 72 * pixels, 0.25: 36 * pixels, 0.125: 18 * pixels}}
    order = np.argsort(-np.abs(PARAMS["conv"]).mean((0, 1, 2)))
    for weight, *_ in timed:
        kept = sorted(order[: weight.shape[-1]])
        np.testing.assert_array_equal(weight, PARAMS["conv"][..., kept])


def test_a_pattern_that_follows_the_fraction(timed):
    """Some of every four: a pattern is a function, which `prune` takes too."""

    def of_four(score, keep, layout):
        return prune.n_of_m(max(1, round(4 * keep / score.size)), 4)(score, keep, layout)

    found = table(pattern=of_four, kept=(0.75, 0.25), rule=lambda path, w: path == "tied")
    assert list(found["tied"]) == [1.0, 0.75, 0.25]
    for n, (weight, *_) in zip((4, 3, 1), timed):
        assert np.all(np.count_nonzero(sx.dense(weight).reshape(2, 4, 8), axis=1) == n)


def test_the_table_makes_by_latency_prune_the_slow_layer(timed):
    """`tied` sees 34 rows, `small` 2: about half of the time is only to be had from `tied`, until `small` is slow."""
    rule = lambda path, w: path in ("tied", "small")  # noqa: E731
    times = table(pattern=prune.block((2, 2)), rule=rule)

    def kept(times):
        step = prune.prune(prune.magnitude(), 0.49, prune.by_latency(times), prune.block((2, 2)))
        info = sx.compress(apply, PARAMS, step, batches=[X], rule=rule).info
        return {path: info[path]["steps"][0]["kept"] for path in times}

    assert kept(times) == {"small": 8, "tied": 32}
    assert kept(times | {"small": {1.0: 10_000.0, 0.5: 3000.0}}) == {"small": 4, "tied": 64}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kept": (0.5, 1.5)}, r"kept must be in \[0.0, 1.0\]; got 1.5"),
        ({"kept": (0.0,)}, "kept must be a finite number above 0; got 0.0"),
        ({"rule": lambda path, w: False}, "selects no weight"),
        ({"pattern": prune.n_of_m(2, 4), "kept": (0.5,)}, r"conv: n_of_m\(2, 4\) needs an input axis divisible by 4"),
        ({"form": measure.fewer_outputs, "pattern": prune.rows()}, "conv: .* a pattern of whole outputs"),
        ({"form": lambda w, mask, layout: w[:1], "pattern": prune.rows()}, "small: dot_general requires"),
        ({"repeats": 1}, "repeats must be an integer of at least 2"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        table(**options)


@pytest.mark.parametrize("x", [None, X[:0], jax.ShapeDtypeStruct(X.shape, X.dtype)])
def test_a_batch_has_values(x):
    with pytest.raises(ValueError, match="x must be one batch of inputs with values"):
        measure.layer_seconds(apply, PARAMS, x)


def test_inside_scan():
    def stacked(p, x):
        return lax.scan(lambda x, w: (x @ w, None), x, p["stack"])[0]

    with pytest.raises(ValueError, match="stack: used inside scan"):
        measure.layer_seconds(stacked, {"stack": normal(2, 4, 4)}, normal(3, 4))
