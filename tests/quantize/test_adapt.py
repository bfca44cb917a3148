"""AdaPT: golden bits, the two halves of the controller, words that change inside compiled training."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import spartax as sx
from spartax import quantize, train
from spartax.arrays import FakeQuantized, FixedPoint
from spartax.quantize import word_lengths
from tests import plugs


@pytest.mark.parametrize(
    ("diversity", "first", "second", "fraction"), [(1.5, 1, 1, 5), (3, 11, 28, 24), (10, 1, 28, 19), (50, 1, 28, 19)]
)
def test_golden_bits(diversity, first, second, fraction):
    assert [int(s) for s in word_lengths.suggestions(4, diversity)] == [first, second]
    assert word_lengths.push_up(4, diversity, "mean") == fraction
    assert word_lengths.push_up(4, diversity, "min") == 4 + min(first, second)
    assert word_lengths.push_up(4, diversity, "max") == min(4 + max(first, second), 32)


def test_gradients_that_agree_ask_for_the_least():
    """Their logarithm is negative, and its square would ask for 28 bits."""
    assert word_lengths.push_up(4, 1 / 25, "max") == 5
    assert word_lengths.push_up(4, 0.0, "max") == 5
    assert [int(s) for s in word_lengths.suggestions(4, 2.7183)] == [32, 28]  # 1 / (L - 1) has no end here


@pytest.mark.parametrize(
    ("gradients", "expected"),
    [
        (np.ones((8, 5)), 1 / 8),
        (np.eye(6), 1.0),
        (np.array([[1.0, 0], [-0.5, 0.1]]), 1.26 / 0.26),
    ],
)
def test_diversity_of_gradients(gradients, expected):
    """`1/n` where all agree, 1 where they are orthogonal, more where they cancel."""
    squares, total = np.sum(gradients**2), np.sum(gradients.sum(0) ** 2)
    np.testing.assert_allclose(word_lengths.gradient_diversity(squares, total), expected, rtol=1e-6)


def test_lookback_is_short_where_gradients_cancel():
    lengths = [int(word_lengths.lookback(d, 25, 100)) for d in (0.0, 0.04, 1.0, 3.0, 4.0, 1e9)]
    assert lengths == [100, 100, 100, 34, 25, 25]


def slow_divergence(weight, fraction, bins):
    """By `np.histogram`, in double precision."""
    largest = np.abs(weight).max()
    rounded = np.round(weight * 2.0**fraction) / 2.0**fraction
    edges = np.linspace(-largest, largest, bins + 1)
    p, q = (np.histogram(np.clip(v, -largest, largest), edges)[0] / weight.size for v in (weight, rounded))
    p, q = (0.9999 * v + 1e-4 / bins for v in (p, q))
    return np.sum(p * np.log(p / q))


def test_push_down_is_the_smallest_fraction_that_loses_nothing():
    weight = np.random.default_rng(0).normal(size=4000).astype(np.float32)
    found = jax.jit(jax.vmap(lambda f: word_lengths.divergence(weight, f, 50)))(np.arange(24))
    np.testing.assert_allclose(found, [slow_divergence(weight.astype(float), f, 50) for f in range(24)], atol=2e-4)
    assert np.all(np.diff(found[:8]) < 0)
    assert found[0] > 1 > 1e-4 > found[23]
    lossless = int(jax.jit(lambda w: word_lengths.push_down(w, 0.01, 50))(weight))
    assert found[lossless] < 0.01 <= min(found[:lossless])
    assert int(jax.jit(lambda w: word_lengths.push_down(w, 0.01, 50))(weight / 16)) == lossless + 4


def test_a_word_holds_its_largest_entry():
    largest = jnp.array([0.0, 0.3, 1.0, 1.5, 40.0, 40.0])
    bits, fraction = word_lengths.word(largest, jnp.array([4, 4, 4, 4, 4, 32]), 3)
    np.testing.assert_array_equal(bits, [8, 8, 8, 9, 14, 32])
    np.testing.assert_array_equal(fraction, [4, 4, 4, 4, 4, 25])


def test_rounding_twice_is_rounding_once():
    weight = plugs.draw()["dense"]
    words = FixedPoint(jnp.full((1, 1), 9), jnp.full((1, 1), 5))
    once = plugs.dense(FakeQuantized(weight, words))
    np.testing.assert_array_equal(plugs.dense(FakeQuantized(once, words)), once)
    assert np.abs(once - weight).max() > 1e-3


def test_each_layer_of_a_stack_gets_what_its_gradients_ask_for():
    """Gradients agree in the first layer and cancel in the second; a choice follows after four of them."""
    weights = {"stack": plugs.draw()["stack"]}
    given = plugs.evidence(weights)
    shortest, middle = (quantize.adapt(strategy, lookback=(2, 4)) for strategy in ("min", "mean"))
    first, state = middle.init(weights, given)
    params = first
    for sign in (-0.9, 1.0, -0.9):
        again = given._replace(grads={"stack": given.grads["stack"] * jnp.array([1, sign]).reshape(2, 1, 1)})
        params, state, _ = middle.update(params, state, again)
    jax.tree.map(np.testing.assert_array_equal, params, first)
    down = [int(f) for f in first["stack"].quantizer.point.reshape(-1)]
    after, _, info = shortest.update(params, state, given)
    assert info["stack"]["fraction"] == [down[0] + 1, down[1] + 1]
    after, state, info = middle.update(params, state, given)
    found = info["stack"]
    assert found["fraction"] == [down[0] + 1, down[1] + (1 + 32 - down[1] + 1) // 2]
    assert found["lookback"] == 2
    assert [int(n) for n in (state["stack"].count, state["stack"].length)] == [0, 2]
    assert not np.any(state["stack"].total)
    ends = np.maximum(np.ceil(np.log2(np.abs(np.asarray(weights["stack"])).max((1, 2)))), 0)
    assert found["bits"] == [min(f + 1 + int(e) + 4, 32) for f, e in zip(found["fraction"], ends)]
    np.testing.assert_array_equal(after["stack"].weight, weights["stack"])


def test_new_words_in_training_retrace_nothing():
    """The loop hands over gradients; words change after every second one; one trace of the step serves all."""
    rng = np.random.default_rng(1)
    weight, x = rng.normal(size=(6, 3)), rng.normal(size=(16, 6)).astype(np.float32)
    params, y = {"w": jnp.asarray(weight, jnp.float32)}, jnp.asarray(rng.integers(0, 3, 16), jnp.int32)
    traces = []

    def network(params, x):
        traces.append(isinstance(params["w"], FakeQuantized))
        return sx.matmul(params["w"], x)

    transform, tx = quantize.adapt("max", every=1, lookback=(2, 2), eps=0.5), optax.sgd(0.1)
    apply = sx.compressed(network)
    variables, method = train.begin(transform, apply, params, jnp.asarray(x), jax.random.key(0))
    state = train.init_state(variables, tx, method=method)
    step = train.make_step(train.clean(), tx, apply)
    refresh = train.make_refresh(transform, train.clean(), tx, apply)
    seen, counts = [], []
    for _ in range(6):
        if refresh.due(int(state.step)):
            state = refresh.update(state, jax.random.key(0), jnp.asarray(x), y)
            seen.append(state.method.info["w"]["fraction"][0])
        state, _ = step(state, jax.random.key(0), jnp.asarray(x), y)
        counts.append(len(traces))
    assert len(seen) == 5
    assert seen[0] != seen[1] == seen[2]
    assert counts[2] == counts[-1]
    assert not np.array_equal(state.variables["w"].weight, params["w"])


def test_words_of_up_to_16_bits_are_kept():
    weights = {"dense": plugs.draw()["dense"]}
    params, info = plugs.run(quantize.adapt(spare=0), weights, plugs.evidence(weights))
    assert 8 < info["dense"]["bits"][0] <= 16
    small = sx.pack(params["dense"])
    np.testing.assert_array_equal(sx.dense(small), sx.dense(params["dense"]))
    assert sx.nbytes(small) < weights["dense"].nbytes * 0.6


def test_bad_arguments():
    for bad, match in (
        (lambda: quantize.adapt("mid"), "strategy must be one of"),
        (lambda: quantize.adapt(every=0), "every must be an integer"),
        (lambda: quantize.adapt(lookback=(9, 4)), r"lookback\[1\] must be an integer of at least 9; got 4"),
        (lambda: quantize.adapt(eps=0), "eps must be a finite number above 0"),
        (lambda: quantize.adapt(spare=-1), "spare must be an integer of at least 0"),
    ):
        with pytest.raises(ValueError, match=match):
            bad()
