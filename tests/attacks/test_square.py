import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from spartax.attacks import noise, objective, threats
from spartax.attacks import square_patterns as patterns
from spartax.attacks.network import example_keys, network
from spartax.attacks.resumable import Rows
from spartax.attacks.square import Settings, chance, moves_on, square
from spartax.attacks.square_moves import Chance, lines
from tests.oracles import attacks as oracle

SHAPE, QUERIES = (12, 10, 3), 60
EPS = {"linf": 0.06, "l2": 1.5, "l1": 8.0}


def classifier(size, classes=4, seed=0, *, steps=None):
    """Linear, or a staircase with `steps` per unit, whose gradient is zero everywhere."""
    weight = jax.random.normal(jax.random.key(seed), (size, classes)) / np.sqrt(size)

    def logits_fn(x):
        z = (x.reshape(x.shape[0], -1) - 0.5) @ weight
        return z if steps is None else jnp.round(z * steps) / steps

    return logits_fn


LOGITS_FN = classifier(360)
X = jax.random.uniform(jax.random.key(1), (6, *SHAPE))
Y = jnp.argmax(LOGITS_FN(X), axis=1).at[5].add(1) % 4  # the last one is misclassified as it is
NET = network(LOGITS_FN)


def rows(order=(0, 1, 2, 3, 4, 5)):
    order = jnp.array(order)
    return Rows(X[order], Y[order], example_keys(jax.random.key(7), order), LOGITS_FN(X[order]))


@functools.cache
def runner(norm, parity=False):
    """`start(rows, run)` and `advance(state, count)` of one attack, jitted."""
    attack = square(EPS[norm], norm, queries=QUERIES, parity=parity)
    start = jax.jit(lambda given, run: attack.start(NET, given, run))
    return start, jax.jit(lambda state, count: attack.advance(NET, state, count))


@functools.partial(jax.jit, static_argnums=0)
def draws_of(settings, state):
    return chance(settings, state, jax.vmap(jax.random.fold_in)(state.keys, state.number), 3)


def equal(one, other):
    """Two states, leaf by leaf, to the last bit."""
    for left, right in zip(one, other, strict=True):
        if jnp.issubdtype(left.dtype, jax.dtypes.prng_key):
            left, right = jax.random.key_data(left), jax.random.key_data(right)
        np.testing.assert_array_equal(left, right)


def margins(x, y):
    z = np.array(LOGITS_FN(jnp.asarray(x, jnp.float32)))
    own = np.take_along_axis(z, y[:, None], 1)[:, 0]
    np.put_along_axis(z, y[:, None], -np.inf, 1)
    return own - z.max(1)


def test_window_sides_of_the_reference():
    times = [0, 10, 11, 50, 51, 200, 201, 500, 501, 1000, 1001, 2000, 2001, 4000, 4001, 4999]
    sides = patterns.window_sides("linf", 5000, 0.8, rescale=False, height=32, width=32)
    np.testing.assert_array_equal(sides[times], [29, 29, 20, 20, 14, 14, 10, 10, 7, 7, 5, 5, 4, 4, 3, 3])
    sides = patterns.window_sides("linf", 20_000, 0.8, rescale=False, height=32, width=32)
    np.testing.assert_array_equal(sides[[6001, 8000, 8001]], [2, 2, 1])


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
@pytest.mark.parametrize("rescale", [False, True])
@pytest.mark.parametrize(("height", "width"), [(32, 32), (28, 28), (8, 11), (5, 3)])
def test_window_sides_against_the_oracle(norm, rescale, height, width):
    sides = patterns.window_sides(norm, 700, 0.3, rescale=rescale, height=height, width=width)
    expected = [oracle.square_side(norm, query, 700, 0.3, rescale, height, width) for query in range(700)]
    np.testing.assert_array_equal(sides, expected)


@pytest.mark.parametrize("norm", ["l2", "l1"])
def test_patterns_against_the_oracle(norm):
    sides = np.array([1, 3, 4, 7, 29])
    table = patterns.patches(sides, norm)
    for place, side in enumerate(sides):
        for transposed in (0, 1):
            patch = table[place, transposed]
            np.testing.assert_allclose(patch[:side, :side], oracle.square_pattern(side, norm, transposed), atol=1e-6)
            assert np.sum(np.abs(patch)) == pytest.approx(np.sum(np.abs(patch[:side, :side])))


@pytest.mark.parametrize(("norm", "parity"), [("linf", False), ("l2", False), ("l1", False), ("linf", True)])
def test_iterates_against_the_oracle(norm, parity):
    """The same random numbers; slices instead of masks, loops instead of tables, float64: the same images."""
    start, advance = runner(norm, parity)
    state, settings = start(rows(), 0), Settings(norm, EPS[norm], QUERIES, 0.8, False, parity)
    x0, y = np.asarray(X, np.float64), np.asarray(Y)
    x = first_images(norm, state, x0)
    np.testing.assert_allclose(state.x, x, atol=2e-6)
    best, accepted = margins(x, y), 0
    for query in range(20):
        side = oracle.square_side(norm, query, QUERIES, 0.8, False, *SHAPE[:2])
        draw = jax.tree.map(np.asarray, draws_of(settings, state))
        draws = zip(draw.corners, draw.transposed, draw.sign)
        new = np.stack(
            [oracle.square_query(norm, EPS[norm], x[i], x0[i], side, *d, not parity) for i, d in enumerate(draws)]
        )
        margin, active = margins(new, y), ~np.asarray(state.broken)
        better = active & (margin < best)
        accepted += better.sum()
        x[better], best[better] = new[better], margin[better]
        state = advance(state, 1)
        np.testing.assert_allclose(state.x, x, atol=1e-5)
        np.testing.assert_allclose(state.margin, best, atol=1e-5)
        np.testing.assert_array_equal(state.broken, best < 0)
    assert accepted >= 5
    assert not np.all(state.broken)


def first_images(norm, state, x0):
    keys, shared = (objective.fold(k, QUERIES) for k in (state.keys, state.shared))
    transposed, sign = np.zeros((6, 1)), noise.uniform(keys, jnp.zeros((6, 1, *SHAPE[1:])))[:, 0]
    if norm != "linf":
        tiles = (SHAPE[0] // 2) * (SHAPE[1] // 2)
        transposed = noise.uniform(objective.fold(shared, 0), jnp.zeros((6, tiles))) < 0.5
        sign = noise.uniform(keys, jnp.zeros((6, tiles, 3)))
    sign = np.where(np.asarray(sign) < 0.5, -1.0, 1.0)
    x = np.stack([oracle.square_start(norm, EPS[norm], *each) for each in zip(x0, np.asarray(transposed), sign)])
    x[5] = x0[5]
    return x


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_inside_the_ball_and_the_box_and_never_worse(norm):
    start, advance = runner(norm)
    state = start(rows(), 0)
    seen = [state]
    for _ in range(3):
        seen.append(advance(seen[-1], 20))
    for before, after in itertools.pairwise(seen):
        assert np.all(after.margin <= before.margin)
    end = seen[-1]
    assert np.all((end.x >= 0) & (end.x <= 1))
    assert np.all(threats.lengths(end.x - X, norm) <= EPS[norm] + 1e-6)
    np.testing.assert_array_equal(np.argmax(NET(end.x, end.keys), axis=1) != Y, end.broken)
    np.testing.assert_array_equal(end.x[5], X[5])  # misclassified as it is: left alone
    assert end.broken_at[5] == 0
    assert np.all((end.broken_at >= 0) == end.broken)
    broken_at = np.asarray(end.broken_at)
    assert np.any(broken_at > 0)
    for state, queries in zip(seen, (0, 20, 40, 60)):
        np.testing.assert_array_equal(state.broken, (broken_at >= 0) & (broken_at <= queries))


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_pieces_make_up_one_run(norm):
    start, advance = runner(norm)
    whole = advance(start(rows(), 0), 60)
    pieces = start(rows(), 0)
    for count in (1, 0, 12, 47):
        pieces = advance(pieces, count)
    equal(pieces, whole)


@pytest.mark.parametrize("parity", [False, True])
def test_rows_do_not_influence_each_other(parity):
    """Whatever else is in the batch; in parity mode once the run has started."""
    start, advance = runner("linf", parity)
    together = start(rows(), 0)
    others = (3, 3, 3, 0, 0, 0)
    begun = jax.tree.map(lambda leaf: leaf[jnp.array(others)], together) if parity else start(rows(others), 0)
    alone, together = advance(begun, 60), advance(together, 60)
    equal(
        jax.tree.map(lambda leaf: leaf[jnp.array([3, 0])], together),
        jax.tree.map(lambda leaf: leaf[jnp.array([0, 3])], alone),
    )


def test_parity_shares_what_the_reference_shares():
    """One window and, for linf, one set of signs for all images; never the last row."""
    draws = {}
    for norm in ("linf", "l2"):
        for parity in (False, True):
            state = runner(norm, parity)[0](rows(), 0)
            settings = Settings(norm, EPS[norm], QUERIES, 0.8, False, parity)
            draws[norm, parity] = [len(np.unique(a, axis=0)) for a in draws_of(settings, state)]
    assert draws["linf", True] == [1, 1, 1]
    assert draws["l2", True][:2] == [1, 1]
    assert draws["l2", True][2] > 1
    assert draws["linf", False][0] == draws["l2", False][0] == 6
    touched = {}
    for parity in (False, True):
        start, advance = runner("linf", parity)
        first = start(rows(), 0)
        touched[parity] = np.any(np.asarray(advance(first, 60).x != first.x), axis=(0, 3))
    assert not touched[True][-1].any()
    assert touched[False][-1].any()


def test_a_network_without_gradient_is_broken():
    """And what is found depends on the key and on the dataset index, not on the order."""
    staircase = classifier(192, steps=3)
    x = jax.random.uniform(jax.random.key(5), (16, 8, 8, 3), minval=0.2, maxval=0.8)
    y = jnp.argmax(staircase(x), axis=1)
    assert not np.any(jax.grad(lambda x: jnp.sum(staircase(x) ** 2))(x))
    attack = jax.jit(lambda key, x, y, index: square(0.1, queries=200)(key, staircase, x, y, index=index))
    index, order = jnp.arange(40, 56), jnp.roll(jnp.arange(16), 5)
    adv = attack(jax.random.key(0), x, y, index)
    assert np.mean(np.argmax(staircase(adv), axis=1) != y) >= 0.8
    assert np.abs(adv - x).max() <= 0.1 + 1e-6
    np.testing.assert_array_equal(attack(jax.random.key(0), x[order], y[order], index[order]), adv[order])
    assert np.any(attack(jax.random.key(0), x, y, index + 1) != adv)
    assert np.any(attack(jax.random.key(1), x, y, index) != adv)


def test_stops_when_all_are_broken():
    start, advance = runner("linf")
    state = start(rows(), 0)
    state = state._replace(broken=state.broken | True)
    equal(advance(state, 60), state)


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_radius_zero_changes_nothing(norm):
    settings = Settings(norm, 0.0, 3, 0.8, False, False)
    step = moves_on(settings, X)
    draw = Chance(jnp.full((6, 4), 0.5), jnp.ones(6, int), jnp.ones((6, 3)))
    propose = jax.jit(lambda x: step.propose(x, x, draw, jnp.zeros(6, int)))
    np.testing.assert_array_equal(propose(lines(X)), lines(X))
    keys = rows().keys
    np.testing.assert_array_equal(jax.jit(step.start)(keys, keys, X), X)


def test_restarts_are_independent_runs():
    attack = square(EPS["linf"], queries=QUERIES, restarts=3)
    assert attack.runs(10) == 3
    start, _ = runner("linf")
    starts = [np.asarray(start(rows(), run).x[:5]) for run in range(3)]
    assert np.any(starts[0] != starts[1])
    assert np.any(starts[1] != starts[2])
    assert (attack.steps, attack.forwards, attack.backwards, attack.rank(2)) == (QUERIES, 1, 0, 0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"eps": -1.0}, "eps must be in"),
        ({"eps": 0.1, "norm": "max"}, "norm must be one of"),
        ({"eps": 0.1, "queries": 0}, "queries must be an integer of at least 1"),
        ({"eps": 0.1, "p_init": 1.5}, "p_init must be in"),
        ({"eps": 0.1, "restarts": 0}, "restarts must be an integer of at least 1"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        square(**options)


def test_not_images():
    with pytest.raises(ValueError, match=r"images \[B, H, W, C\] for the square attack; got shape \(2, 5\)"):
        square(0.1)(jax.random.key(0), classifier(5), jnp.ones((2, 5)), jnp.zeros(2, int))
