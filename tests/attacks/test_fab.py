import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from spartax.attacks import threats
from spartax.attacks.fab import fab
from spartax.attacks.network import example_keys, network
from spartax.attacks.resumable import Rows
from tests.attacks import golden, nets
from tests.attacks.test_projections import GOLDEN
from tests.oracles import attacks as oracle

NORMS = ("linf", "l2", "l1")
DUAL = {"linf": 1, "l2": 2, "l1": np.inf}
LOGITS_FN, X, _ = nets.convolution()
Y = jnp.argmax(LOGITS_FN(X), axis=1).at[3].add(1) % 4  # row 3 is misclassified as it is
NET = network(LOGITS_FN)
EPS = {"linf": 0.03, "l2": 0.3, "l1": 2.0}


def rows(order=tuple(range(8))):
    order = jnp.array(order)
    return Rows(X[order], Y[order], example_keys(jax.random.key(2), order), LOGITS_FN(X[order]))


@functools.cache
def runner(norm, **options):
    """`start(rows, run)` and `advance(state, count)` of one attack, jitted."""
    attack = fab(EPS[norm], norm, **options)
    start = jax.jit(lambda given, run: attack.start(NET, given, run))
    return attack, start, jax.jit(lambda state, count: attack.advance(NET, state, count))


@pytest.mark.parametrize("norm", NORMS)
def test_distances_of_the_reference(norm):
    net = network(golden.logits_fn)
    given = Rows(golden.X, golden.Y, example_keys(jax.random.key(0), jnp.arange(64)), golden.logits_fn(golden.X))
    attack = fab(math.inf, norm)
    run = jax.jit(lambda given, number: attack.advance(net, attack.start(net, given, number), 100))
    title = {"linf": "Linf", "l2": "L2", "l1": "L1"}[norm]
    for rank in (2, 10):  # the golden rank counts the right class too
        state = run(given, rank - 2)
        # Five digits are stored; the relative tolerance is for the rest.
        np.testing.assert_allclose(state.distance, GOLDEN["fab_t"][f"{title}-k{rank}"], rtol=1e-3, atol=6e-6)
        np.testing.assert_array_equal(np.argmax(golden.logits_fn(state.x_adv), axis=1) != golden.Y, state.broken)
        np.testing.assert_allclose(threats.lengths(state.x_adv - golden.X, norm), state.distance, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(("norm", "targets"), [("linf", 4), ("l2", 4), ("l1", 4), ("l2", None)])
def test_linear_model_closed_form(norm, targets):
    """The closest image over all classes is the projection on the nearest face, here partly cut by the box."""
    logits_fn, weight, _, _ = nets.linear(scale=0.05)
    x = jax.random.uniform(jax.random.key(9), (8, 4, 4, 2))
    x = jnp.where(x < 0.3, 0.0, jnp.where(x > 0.8, 1.0, x))
    y = jnp.argmax(logits_fn(x), axis=1)
    attack = fab(math.inf, norm, steps=40, targets=targets)
    adv = np.asarray(jax.jit(lambda x, y: attack(jax.random.key(0), logits_fn, x, y))(x, y))
    assert np.all(np.argmax(logits_fn(adv), axis=1) != y)
    flat, weight = np.asarray(x).reshape(8, -1), np.asarray(weight)
    for row in range(8):
        lengths, cut = [], []
        for label in set(range(5)) - {int(y[row])}:
            w = weight[:, label] - weight[:, y[row]]
            step = oracle.hyperplane_box(flat[row], w, 0.5 * w.sum(), norm)
            if abs(w @ (flat[row] + step - 0.5)) < 1e-6:  # the box holds part of this face
                free = abs(w @ (flat[row] - 0.5)) / np.linalg.norm(w, DUAL[norm])
                lengths.append({"linf": np.abs(step).max(), "l2": np.linalg.norm(step), "l1": np.abs(step).sum()}[norm])
                cut.append(lengths[-1] > free * 1.001)
        found = float(threats.lengths(adv[row : row + 1] - x[row : row + 1], norm)[0])
        assert min(lengths) * (1 - 1e-5) <= found <= min(lengths) * 1.02
        assert any(cut)


@pytest.mark.parametrize("norm", NORMS)
def test_untargeted_iterates_against_the_oracle(norm):
    """All class differences by a Jacobian for each image, sorted projections, float64: the same images."""
    _, start, advance = runner(norm, targets=None)
    state = start(rows(), 0)
    jacobian = jax.jit(jax.vmap(jax.jacrev(lambda x: LOGITS_FN(x[None])[0])))
    x0, x = np.asarray(X, np.float64), np.array(X, np.float64)
    closest = np.where(np.arange(8) == 3, 0.0, np.inf)
    for _ in range(12):
        z, slopes = np.asarray(LOGITS_FN(jnp.float32(x))), np.asarray(jacobian(jnp.float32(x))).reshape(8, 4, -1)
        for row in range(8):
            y = int(Y[row])
            gaps, normals = z[row] - z[row, y], slopes[row] - slopes[row, y]
            reach = np.abs(gaps) / (np.linalg.norm(normals, DUAL[norm], axis=1) + 1e-12)
            reach[y] = np.inf
            label = np.argmin(reach)
            x[row] = oracle.fab_step(norm, x[row], x0[row], gaps[label], normals[label]).reshape(x[row].shape)
        wrong = np.asarray(jnp.argmax(LOGITS_FN(jnp.float32(x)), axis=1) != Y)
        distance = np.asarray(threats.lengths(jnp.float32(x - x0), norm))
        closest = np.where(wrong, np.minimum(closest, distance), closest)
        x[wrong] = x0[wrong] + 0.9 * (x - x0)[wrong]
        state = advance(state, 1)
        off = np.sort(np.abs(np.asarray(state.x) - x).reshape(8, -1), axis=1)
        if norm == "l1":  # the entry moved last takes what is left of a sum over a small slope: rounding shows there
            assert off[:, :-1].max() < 1e-3
            assert off[:, -1].max() < 2e-2
            np.testing.assert_allclose(state.distance, closest, rtol=1e-3, atol=2e-2)
            x, closest = np.array(state.x, np.float64), np.array(state.distance, np.float64)
        else:
            assert off.max() < 2e-5
            np.testing.assert_allclose(state.distance, closest, rtol=1e-3, atol=1e-5)
    assert np.isfinite(closest).sum() >= 6


@pytest.mark.parametrize("norm", NORMS)
def test_what_is_accepted(norm):
    attack, start, advance = runner(norm)
    states = [start(rows(), 0)]
    for _ in range(3):
        states.append(advance(states[-1], 7))
    end, found = states[-1], attack.outcome(states[-1])
    assert 1 < np.sum(end.broken) < 8  # some boundaries are nearer than eps, some are not
    np.testing.assert_array_equal(end.broken, end.distance <= EPS[norm])
    np.testing.assert_array_equal(found.x[~end.broken], X[~end.broken])
    assert np.all(np.argmax(LOGITS_FN(found.x), axis=1)[end.broken] != Y[end.broken])
    assert np.all(threats.lengths(found.x - X, norm) <= EPS[norm] + 1e-6)
    assert np.all((end.x_adv >= 0) & (end.x_adv <= 1))
    assert end.distance[3] == end.broken_at[3] == 0  # misclassified as it is
    np.testing.assert_array_equal(found.x[3], X[3])
    broken_at = np.asarray(end.broken_at)
    for state, count in zip(states, (0, 7, 14, 21)):
        np.testing.assert_array_equal(state.broken, (broken_at >= 0) & (broken_at <= count))
        assert np.all(state.distance >= end.distance)


def same(one, other):
    """Two states, leaf by leaf, to the last bit."""
    for left, right in zip(one, other, strict=True):
        if jnp.issubdtype(left.dtype, jax.dtypes.prng_key):
            left, right = jax.random.key_data(left), jax.random.key_data(right)
        np.testing.assert_array_equal(left, right)


@pytest.mark.parametrize("norm", NORMS)
def test_pieces_make_up_one_run(norm):
    _, start, advance = runner(norm)
    whole = advance(start(rows(), 1), 21)
    pieces = start(rows(), 1)
    for count in (1, 0, 12, 8):
        pieces = advance(pieces, count)
    same(pieces, whole)


def test_rows_do_not_influence_each_other():
    _, start, advance = runner("linf")
    others = (6, 6, 2, 2, 2, 6, 6, 6)
    together, alone = advance(start(rows(), 0), 21), advance(start(rows(others), 0), 21)
    for leaf in ("x", "x_adv", "distance"):
        left, right = getattr(together, leaf)[jnp.array([2, 6])], getattr(alone, leaf)[jnp.array([2, 0])]
        np.testing.assert_allclose(left, right, atol=1e-6)
    np.testing.assert_array_equal(together.broken_at[jnp.array([2, 6])], alone.broken_at[jnp.array([2, 0])])


def test_targets_come_in_the_order_of_their_logits():
    attack, start, _ = runner("linf")
    assert [attack.runs(classes) for classes in (2, 4, 10, 100)] == [1, 3, 9, 9]
    assert [attack.rank(run) for run in range(3)] == [1, 2, 3]
    order = np.argsort(-np.where(np.arange(4) == np.asarray(Y)[:, None], np.inf, LOGITS_FN(X)), axis=1)
    for run in range(3):
        np.testing.assert_array_equal(start(rows(), run).targets, order[:, run + 1])
    both = fab(0.1, targets=2, restarts=3)
    assert both.runs(10) == 6
    assert [both.rank(run) for run in range(6)] == [1, 1, 1, 2, 2, 2]
    assert fab(0.1, targets=None, restarts=5).runs(10) == 5


@pytest.mark.parametrize("norm", NORMS)
def test_restarts_begin_at_random_images_half_of_eps_away(norm):
    attack = fab(EPS[norm], norm, restarts=3)
    start = jax.jit(lambda given, run: attack.start(NET, given, run))
    states = [start(rows(), run) for run in range(4)]
    np.testing.assert_array_equal(states[0].x, X)
    np.testing.assert_array_equal(states[3].x, X)  # first run of the next target
    away = np.asarray([threats.lengths(state.x - X, norm) for state in states[1:3]])
    assert np.all(away <= EPS[norm] / 2 + 1e-6)
    assert np.all(away > 0.3 * EPS[norm])
    assert np.all((states[1].x >= 0) & (states[1].x <= 1))
    assert np.all(np.any(np.asarray(states[1].x != states[2].x), axis=(1, 2, 3)))


def test_radius_zero_changes_nothing_and_a_larger_one_breaks_more():
    adv = {}
    for eps in (0.0, 0.1):
        attack = fab(eps, steps=10, targets=3)
        adv[eps] = jax.jit(lambda x, y, attack=attack: attack(jax.random.key(0), LOGITS_FN, x, y))(X, Y)
        assert np.abs(adv[eps] - X).max() <= eps + 1e-6
    np.testing.assert_array_equal(adv[0.0], X)
    broken = [np.sum(np.argmax(LOGITS_FN(adv[eps]), axis=1) != Y) for eps in (0.0, 0.1)]
    assert broken[0] == 1 < broken[1] - 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"eps": -1.0}, "eps must be in"),
        ({"eps": 0.1, "norm": "max"}, "norm must be one of"),
        ({"eps": 0.1, "steps": 0}, "steps must be an integer of at least 1"),
        ({"eps": 0.1, "targets": 0}, "targets must be an integer of at least 1"),
        ({"eps": 0.1, "restarts": 0}, "restarts must be an integer of at least 1"),
        ({"eps": 0.1, "alpha_max": 1.5}, "alpha_max must be in"),
        ({"eps": 0.1, "beta": -0.1}, "beta must be in"),
        ({"eps": 0.1, "eta": 0.9}, "eta must be in"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        fab(**options)
