import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

from spartax import attacks, measure, program
from spartax.arrays import Masked
from spartax.measure.padding import padded

KEY = jax.random.key(0)
rng = np.random.default_rng(0)
X = rng.random((23, 5)).astype(np.float32)
W = jnp.asarray(rng.standard_normal((5, 4)), jnp.float32)
Y = rng.integers(0, 4, 23).astype(np.int32)
EXPECTED = np.argmax(X @ np.asarray(W), 1) == Y


def linear(params, x):
    return x @ params["w"]


def test_padded_batches_keep_every_row_once_and_fill_up_with_the_last():
    seen = list(padded(10, X, Y))
    assert [count for count, _ in seen] == [10, 10, 3]
    assert all(x.shape == (10, 5) and y.shape == (10,) for _, (x, y) in seen)
    np.testing.assert_array_equal(np.concatenate([x[:n] for n, (x, _) in seen]), X)
    np.testing.assert_array_equal(seen[-1][1][0][3:], np.repeat(X[-1:], 7, 0))
    ((count, (x,)),) = padded(100, X)
    assert (count, x.shape) == (23, (100, 5))
    with pytest.raises(ValueError, match="one common, positive length"):
        padded(10, X, Y[:-1])
    with pytest.raises(ValueError, match="batch_size must be an integer"):
        padded(0, X)


@pytest.mark.parametrize("batch_size", [1, 10, 23, 64])
def test_accuracy_counts_each_example_once(batch_size):
    assert measure.accuracy(linear, {"w": W}, X, Y, batch_size) == pytest.approx(EXPECTED.mean())
    np.testing.assert_array_equal(measure.correct(linear, {"w": W}, X, Y, batch_size), EXPECTED)


def test_accuracy_of_compressed_params_compiles_once():
    chex.clear_trace_counter()
    traced = chex.assert_max_traces(linear, n=2)  # once for the shape of the logits
    apply = program.compressed(lambda p, x: traced(p, x))
    mask = jnp.asarray(rng.random((5, 4)) < 0.5)
    expected = np.argmax(X @ np.where(mask, W, 0), 1) == Y
    for _ in range(3):
        assert measure.accuracy(apply, {"w": Masked(W, mask)}, X, Y, 10) == pytest.approx(expected.mean())


def test_accuracy_refuses_labels_that_do_not_fit():
    with pytest.raises(ValueError, match=r"y must lie in \[0, 4\); got values from 4 to 4"):
        measure.accuracy(linear, {"w": W}, X, np.full(23, 4))
    with pytest.raises(ValueError, match="y must have shape"):
        measure.accuracy(linear, {"w": W}, X, Y[:-1])
    with pytest.raises(ValueError, match=r"apply must return logits \[B, K\]"):
        measure.accuracy(lambda p, x: x[:, 0], None, X, Y)


def shift(delta):
    """An attack that adds a number to every pixel."""
    return lambda key, logits_fn, x, y, *, index=None: jnp.clip(x + delta, 0.0, 1.0)


def threshold(params, x):
    """Class 1 where the mean of the image is above one half."""
    m = jnp.mean(x, axis=1, keepdims=True)
    return jnp.concatenate([0.5 - m, m - 0.5], axis=1)


def test_robustness_takes_the_worst_attack_of_each_example():
    x = np.array([[0.2], [0.45], [0.55], [0.8], [0.52]], np.float32)
    y = np.array([0, 0, 1, 1, 0], np.int32)  # the last one is wrong from the start
    found = measure.robustness(
        {"up": shift(0.1), "down": shift(-0.1), "far up": shift(0.4)}, Partial(threshold, None), x, y, KEY, 2
    )
    t, f = True, False
    np.testing.assert_array_equal(found.clean, [t, t, t, t, f])
    np.testing.assert_array_equal(found.robust["up"], [t, f, t, t, f])
    # the attack that makes the last one right does not count as robust
    np.testing.assert_array_equal(found.robust["down"], [t, t, f, t, f])
    np.testing.assert_array_equal(found.robust["far up"], [f, f, t, t, f])
    np.testing.assert_array_equal(found.worst, [f, f, f, t, f])
    assert found.broken_by == {"up": 1, "down": 1, "far up": 1}


def test_robustness_of_a_linear_network_under_fgsm_is_the_known_margin():
    """Two classes: an image is robust exactly when its margin exceeds eps times the l1 norm of the weights."""
    w = rng.standard_normal(5).astype(np.float32)
    params, eps = {"w": jnp.stack([jnp.zeros(5), jnp.asarray(w)], 1)}, 0.1
    x = np.clip(X, eps, 1 - eps)  # so that clipping does not matter
    y = (rng.random(23) < 0.5).astype(np.int32)
    margin = np.where(y == 1, x @ w, -(x @ w))
    attack = {"fgsm": attacks.fgsm(eps), "half": attacks.fgsm(eps / 2)}
    found = measure.robustness(attack, Partial(linear, params), x, y, KEY, batch_size=10)
    np.testing.assert_array_equal(found.clean, margin > 0)
    np.testing.assert_array_equal(found.robust["fgsm"], margin > eps * np.abs(w).sum())
    np.testing.assert_array_equal(found.worst, found.robust["fgsm"])


def test_robustness_does_not_depend_on_the_batch_size():
    def noise(key, logits_fn, x, y, *, index=None):
        keys = jax.vmap(jax.random.fold_in, (None, 0))(key, index)
        return jnp.clip(x + jax.vmap(lambda k: jax.random.normal(k, x.shape[1:]))(keys), 0.0, 1.0)

    attack = {"noise": noise}
    a, b = (measure.robustness(attack, Partial(linear, {"w": W}), X, Y, KEY, n) for n in (7, 23))
    np.testing.assert_array_equal(a.worst, b.worst)
    assert 0 < a.worst.sum() < a.clean.sum()


def test_robustness_does_not_depend_on_the_devices():
    pgd, found, sizes = attacks.pgd(0.05, steps=3), [], []

    def attack(key, f, x, y, *, index=None):
        sizes.append(len(x))  # once for each compilation
        return pgd(key, f, x, y, index=index)

    for devices in ((), jax.devices()[:8]):
        found.append(measure.robustness({"a": attack}, Partial(linear, {"w": W}), X, Y, KEY, 10, devices=devices))
    assert sizes == [10, 16]  # a multiple of the devices
    one, many = found
    chex.assert_trees_all_equal(one.robust, many.robust)
    assert 0 < one.worst.sum() < one.clean.sum()


def test_networks_of_one_structure_share_a_compilation():
    chex.clear_trace_counter()
    traced = chex.assert_max_traces(linear, n=2)  # one for the verdicts, one for the attack

    def apply(params, x):
        return traced(params, x)

    attack = {"fgsm": attacks.fgsm(0.01)}
    networks = [Partial(apply, {"w": scale * W}) for scale in (1.0, -1.0, 0.5)]
    clean = [measure.robustness(attack, network, X, Y, KEY).clean.sum() for network in networks]
    assert clean[0] == clean[2] == EXPECTED.sum() != clean[1]


def test_the_verdict_is_that_of_the_network_whatever_the_route():
    network, other = Partial(linear, {"w": W}), Partial(linear, {"w": -W})
    attack = {"fgsm": attacks.fgsm(0.1)}
    own, transferred = (measure.robustness(attack, network, X, Y, KEY, routes={"it": s}) for s in (network, other))
    np.testing.assert_array_equal(own.clean, EXPECTED)
    np.testing.assert_array_equal(transferred.clean, EXPECTED)
    assert own.worst.sum() < EXPECTED.sum()
    # climbing the loss of -W lowers the loss of W
    np.testing.assert_array_equal(transferred.worst, EXPECTED)


def test_rounding_that_hides_gradients_is_seen_by_the_other_routes():
    """A staircase looks perfectly robust to PGD along its own gradients, which are zero, and is not."""
    weights = jnp.asarray(np.random.default_rng(3).standard_normal((48, 4)), jnp.float32)
    x = np.random.default_rng(4).uniform(0.3, 0.7, (12, 4, 4, 3)).astype(np.float32)

    def stairs(w, x):
        return jnp.round(2 * (x.reshape(len(x), -1) - 0.5) @ w) / 2

    def parent(w, x):
        return (x.reshape(len(x), -1) - 0.5) @ w

    judged, through, dense = (Partial(f, weights) for f in (stairs, program.straight_through(stairs), parent))
    y = np.argmax(judged(x), axis=1).astype(np.int32)
    routes = {"own": judged, "straight-through": through, "dense parent": dense}
    suite = {"pgd": attacks.pgd(0.05, steps=10), "square": attacks.square(0.05, queries=60)}
    plain = measure.robustness({"pgd": suite["pgd"]}, judged, x, y, KEY)
    assert plain.worst.mean() > 0.8
    assert plain.masking == 0.0
    found = measure.robustness(suite, judged, x, y, KEY, routes=routes)
    assert list(found.routes) == ["own", "straight-through", "dense parent", "queries"]
    np.testing.assert_array_equal(found.routes["own"], plain.worst)
    np.testing.assert_array_equal(found.routes["queries"], found.robust["square"])
    np.testing.assert_array_equal(found.worst, np.logical_and.reduce(list(found.routes.values())))
    assert max(found.routes[name].mean() for name in ("straight-through", "dense parent", "queries")) < 0.5
    assert found.worst.mean() < 0.1
    assert found.masking == pytest.approx(plain.worst.mean() - found.worst.mean())
    left = found.clean.copy()
    for name, flags in found.routes.items():
        np.testing.assert_array_equal(found.route == name, left & ~flags)
        left &= flags
    np.testing.assert_array_equal(found.route == "", left)
    with pytest.raises(ValueError, match="routes must hold at least one network"):
        measure.robustness(suite, judged, x, y, KEY, routes={})


def test_logits_that_are_not_numbers_are_wrong():
    broken = lambda params, x: jnp.where(x[:, :1] > 0.5, jnp.nan, x @ params)  # noqa: E731
    found = measure.correct(broken, W, X, np.argmax(X @ np.asarray(W), 1).astype(np.int32))
    np.testing.assert_array_equal(found, X[:, 0] <= 0.5)


def test_a_plain_function_is_a_network_too():
    found = measure.robustness({"up": shift(0.0)}, functools.partial(linear, {"w": W}), X, Y, KEY)
    np.testing.assert_array_equal(found.worst, EXPECTED)


def test_robustness_refuses_bad_input():
    logits = Partial(linear, {"w": W})
    with pytest.raises(ValueError, match="at least one attack"):
        measure.robustness({}, logits, X, Y, KEY)
    with pytest.raises(ValueError, match=r"x must lie in \[0.0, 1.0\]; got values from"):
        measure.robustness({"a": shift(0.1)}, logits, X + 1, Y, KEY)
    outside = lambda key, logits_fn, x, y, *, index=None: x + 0.5  # noqa: E731
    with pytest.raises(ValueError, match=r"'leaves the box' returned images outside \[0, 1\]"):
        measure.robustness({"leaves the box": outside}, logits, X, Y, KEY)
    with pytest.raises(ValueError, match="outside"):
        measure.robustness({"a": shift(np.nan)}, logits, X, Y, KEY)
