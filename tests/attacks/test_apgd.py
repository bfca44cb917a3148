import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from spartax.attacks import losses, objective, threats
from spartax.attacks.apgd import apgd, begin, iterate, prepare
from spartax.attacks.apgd_l1 import equal_windows, largest, least_above, stages
from spartax.attacks.apgd_rules import shrinking_windows
from spartax.attacks.apgd_targeted import apgd_targeted, dlr_or_margin, ranked_class
from spartax.attacks.network import example_keys, network
from spartax.attacks.resumable import Rows
from tests.attacks import golden, nets

EPS = {"linf": 0.012, "l2": 0.12, "l1": 1.2}
TITLES = {"linf": "Linf", "l2": "L2", "l1": "L1"}
KINDS = ("ce", "dlr", "t2", "t5")


def golden_start(norm):
    if norm == "l1":
        return threats.threat("l1", EPS["l1"]).project(golden.X + 0.1 * golden.NOISE, golden.X)
    return jnp.clip(golden.X + EPS[norm] * threats.unit(golden.NOISE, norm), 0, 1)


def golden_loss(logits, y, targets):
    """Each of the four kinds of run has 64 rows of one batch, so that all share a compilation."""
    kind = np.repeat(np.arange(4), 64)
    plain = jnp.where(kind == 0, losses.cross_entropy(logits, y), losses.dlr(logits, y))
    return jnp.where(kind < 2, plain, dlr_or_margin(logits, y, targets))


@functools.cache
def golden_runs(norm):
    """`{steps: state}` of 20 and 100 steps from the golden start, of all kinds of runs, one after the other."""
    x0, y, x_init = (np.concatenate([a] * 4) for a in (golden.X, golden.Y, golden_start(norm)))
    model = network(golden.logits_fn)
    order = np.argsort(-golden.logits_fn(golden.X), axis=1)  # the golden rank counts all classes, also the right one
    targets = jnp.asarray(np.concatenate([order[:, rank] for rank in (0, 0, 1, 4)]))
    keys = example_keys(jax.random.key(0), jnp.arange(len(y)))
    prepared = {
        steps: prepare(EPS[norm], norm, golden_loss, steps, 0.75, 1, True, False, targeted=True, given_start=True)
        for steps in (20, 100)
    }

    @jax.jit
    def run(windows, steps):  # the table is an argument here, so that both lengths share one compilation
        settings = prepared[100]._replace(rule=prepared[100].rule._replace(windows=windows))
        rows = Rows(jnp.asarray(x0), jnp.asarray(y), keys, None)
        state = begin(settings, rows, targets, 0, x_init)
        return jax.lax.fori_loop(0, steps + 1, lambda _, state: iterate(settings, model, state), state)

    tables = {steps: np.zeros(101, np.int32) for steps in prepared}
    for steps, settings in prepared.items():
        tables[steps][: steps + 1] = settings.rule.windows
    return {steps: run(table, steps)._replace(keys=None) for steps, table in tables.items()}


def golden_run(norm, kind, steps):
    """What one golden run found, and the golden record."""
    rows = slice(64 * KINDS.index(kind), 64 * KINDS.index(kind) + 64)
    state = jax.tree.map(lambda leaf: np.asarray(leaf)[rows], golden_runs(norm)[steps])
    return state, golden.GOLDEN["apgd"][f"{TITLES[norm]}-eps{EPS[norm]}-{kind}-T{steps}"]


@pytest.mark.parametrize("steps", [20, 100])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("norm", "tolerance"), [("linf", 1e-4), ("l2", 1e-3)])
def test_flags_and_losses_of_the_reference(norm, tolerance, kind, steps):
    state, expected = golden_run(norm, kind, steps)
    np.testing.assert_array_equal(~state.broken, np.array(expected["robust_flags"], bool))
    losses_expected = np.array(expected["best_loss"])
    # A ratio explodes where the three largest logits have met: chaotic, and the point is broken long before.
    sound = np.full(64, True) if kind == "ce" else losses_expected < 0.95
    assert sound.sum() >= 40
    difference = np.abs(state.loss_best - losses_expected)[sound]
    assert np.sum(difference > tolerance) <= 2
    assert difference.max() <= 20 * tolerance
    assert threats.lengths(state.x_best - np.asarray(golden.X), norm).sum() == pytest.approx(
        expected["xbest_dist_sum"], rel=1e-3
    )


@pytest.mark.parametrize("steps", [20, 100])
@pytest.mark.parametrize("kind", KINDS)
def test_l1_breaks_the_points_that_the_reference_breaks(kind, steps):
    state, expected = golden_run("l1", kind, steps)
    flags = np.array(expected["robust_flags"], bool)
    # The runs on a ratio of logits part after a tie; the aimed ones then differ by at most one point.
    assert np.sum(state.broken == flags) <= (1 if kind == "t5" else 0)
    np.testing.assert_allclose(threats.lengths(state.x_best - golden.X, "l1"), 1.2, rtol=1e-5)
    if kind == "ce":
        assert np.sum(np.abs(state.loss_best - expected["best_loss"]) < 1e-3) >= 58


def test_windows_end_where_the_paper_puts_them():
    assert np.flatnonzero(shrinking_windows(100)).tolist() == [22, 41, 57, 70, 80, 87, 93, 99]
    assert shrinking_windows(100)[[22, 41, 57, 70, 80, 87, 93, 99]].tolist() == [22, 19, 16, 13, 10, 7, 6, 6]
    assert np.flatnonzero(shrinking_windows(10)).tolist() == [2, 3, 4, 5, 6, 7, 8, 9, 10]
    assert np.flatnonzero(equal_windows(100)).tolist() == list(range(4, 101, 4))
    assert np.flatnonzero(equal_windows(20)).tolist() == list(range(1, 21))
    assert stages(100) == [30, 30, 40]
    assert stages(7) == [3, 3, 1]


searched = jax.jit(least_above)


@pytest.mark.parametrize("scale", [1e-30, 1.0])
def test_the_searched_bound_divides_like_sorting(scale):
    values = np.abs(np.random.default_rng(0).normal(size=(8, 5, 7))).astype(np.float32) ** 3 * np.float32(scale)
    values[0], values[1, 0], values[2, 1:] = 0.0, 1.5 * scale, 0.0  # all equal; ties; many zeros
    values[3, :2] = values[3, 2, 0]
    for rank in ([0, 3, 34, 17, 0, 33, 1, 20], [34, 0, 20, 5, 16, 17, 34, 34]):
        least = np.sort(values.reshape(8, -1), axis=1)[np.arange(8), rank]
        bound = np.asarray(searched(jnp.asarray(values), jnp.array(rank)))
        flat = values.reshape(8, -1)
        np.testing.assert_array_equal(flat >= bound[:, None], flat >= least[:, None])


def test_largest_keeps_the_part_of_most_gradient():
    gradient = jnp.array([[1.0, -4.0, 2.0, -3.0]] * 3)
    kept = largest(gradient, jnp.array([0.5, 0.0, 1.0]))
    np.testing.assert_array_equal(kept, [[0, -1, 0, -1], [0, -1, 0, 0], [1, -1, 1, -1]])


def test_targets_go_down_the_clean_logits_without_the_label():
    logits = jnp.array([[3.0, 1.0, 2.0, 0.0], [3.0, 1.0, 2.0, 0.0]])
    y = jnp.array([0, 2])
    assert [ranked_class(logits, y, rank).tolist() for rank in (1, 2, 3)] == [[2, 0], [1, 1], [3, 3]]


def test_first_comparison_is_the_only_difference_of_parity():
    logits_fn, x, y = nets.two_layers()
    model, rows = network(logits_fn), Rows(x, y, example_keys(jax.random.key(0), jnp.arange(8)), None)
    counts = []
    for parity in (False, True):
        settings = prepare(0.05, "linf", losses.dlr, 10, 0.75, 1, parity, False)
        state = begin(settings, rows, y, 0, x)
        counts.append([])
        step = jax.jit(lambda state, settings=settings: iterate(settings, model, state))
        for _ in range(2):
            state = step(state)
            counts[-1].append(np.asarray(state.improved))
    rose = counts[0][1]
    assert rose.tolist() == [1] * 8  # from the clean image the loss rises, ...
    np.testing.assert_array_equal(counts[1][1], np.asarray(state.loss_prev) > 0)  # ... but not yet above 0


@functools.cache
def runner(eps=0.03, norm="linf", **options):
    """An attack on a small network: what it works on, `start()` and `advance(state, count)`, jitted."""
    logits_fn, x, y = nets.two_layers()
    attack, model = apgd(eps, norm, **options), network(logits_fn)
    rows = Rows(x, y, example_keys(jax.random.key(0), jnp.arange(8)), None)
    start = jax.jit(lambda: attack.start(model, rows, 0))
    return attack, rows, start, jax.jit(lambda state, count: attack.advance(model, state, count)), jax.jit(logits_fn)


def test_rows_can_be_taken_out_between_iterations():
    attack, _, start, advance, _ = runner(steps=12)
    halfway = advance(start(), 6)
    whole = attack.outcome(advance(halfway, attack.steps - 6))
    kept = jnp.array([6, 1, 4, 4, 6, 1, 1, 4])  # as many rows as before, which saves a compilation
    part = attack.outcome(advance(jax.tree.map(lambda leaf: leaf[kept], halfway), attack.steps - 6))
    for found, expected in zip(jax.tree.leaves(part), jax.tree.leaves(whole)):
        np.testing.assert_allclose(found, np.asarray(expected)[kept], atol=1e-6)


def test_outcome_tells_the_first_success_and_its_iteration():
    attack, rows, start, step, logits_fn = runner(steps=12)
    state, first = start(), {}
    for number in range(attack.steps):
        seen, state = np.asarray(state.x), step(state, 1)
        for row in np.flatnonzero(np.argmax(logits_fn(seen), axis=1) != rows.y):
            first.setdefault(int(row), (number, seen[row]))
    found = attack.outcome(state)
    assert 4 <= len(first) < 8
    assert [first.get(row, (-1,))[0] for row in range(8)] == found.broken_at.tolist()
    for row, (_, image) in first.items():
        np.testing.assert_array_equal(found.x[row], image)
    np.testing.assert_array_equal(np.argmax(logits_fn(found.best.x), axis=1) != rows.y, found.broken)


def test_targets_share_one_compilation():
    logits_fn, _, x, y = nets.linear()

    def traces(**options):
        seen = []

        def counted(x):
            seen.append(x.shape)
            return logits_fn(x)

        attack = apgd_targeted(0.01, steps=2, **options)
        jax.eval_shape(lambda x: attack(jax.random.key(0), counted, x, y), x)
        return len(seen)

    assert traces(targets=4, restarts=2) == traces(targets=1)


@pytest.mark.parametrize("classes", [2, 3])
def test_few_classes_use_the_margin(classes):
    logits_fn, _, x, y = nets.linear(classes=classes, scale=2.0)
    x_adv = nets.run(apgd_targeted(0.3, steps=10), logits_fn, x, y)
    assert bool(jnp.all(jnp.argmax(logits_fn(x_adv), 1) != y))


def test_large_radii_first_ends_inside_the_small_one():
    attack, rows, start, advance, _ = runner(1.0, "l1", steps=20, large_eps=True)
    moved = lambda x: np.abs(np.asarray(x - rows.x)).reshape(8, -1).sum(1)  # noqa: E731
    assert attack.steps == 7 + 7 + 9
    early = advance(start(), 14)
    assert moved(early.x_best).max() > 1.95  # the second stage, radius 2
    assert not np.any(early.broken)
    late = advance(early, 9)
    assert moved(late.x_best).max() <= 1.0 + 1e-6
    assert 0 < np.sum(late.broken) < 8
    np.testing.assert_array_equal(np.where(late.broken, late.broken_at >= 14, late.broken_at == -1), True)
    assert moved(late.x_adv).max() <= 1.0 + 1e-6


def test_expectation_over_draws_is_the_mean_gradient_with_the_last_draw_kept():
    logits_fn, _, x, y = nets.linear()

    def noisy(x, key):
        return logits_fn(x) * (1.0 + (jax.random.key_data(key)[0] % 5).astype(float))

    keys, model = example_keys(jax.random.key(0), jnp.arange(8)), network(noisy)

    @jax.jit
    def looks():
        single = [objective.forward(model, losses.margin, x, y, objective.fold(keys, draw)).loss for draw in range(3)]
        slope = jax.grad(lambda x: losses.margin(logits_fn(x), y).sum())(x)
        return objective.look(model, losses.margin, x, y, keys, eot=3), single, losses.margin(logits_fn(x), y), slope

    mean, single, plain, slope = jax.tree.map(np.asarray, looks())
    np.testing.assert_allclose(mean.loss, single[2], rtol=1e-5)
    scale = sum(single) / 3 / plain
    np.testing.assert_allclose(mean.gradient, slope * scale.reshape(8, 1, 1, 1), rtol=1e-4)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"steps": 0}, "steps must be an integer"),
        ({"eot": 0}, "eot must be an integer"),
        ({"rho": 1.5}, "rho must be in"),
        ({"large_eps": True}, "large_eps must be False for norm 'linf'"),
        ({"norm": "l0"}, "norm must be one of"),
        ({"eps": -0.1}, "eps must be in"),
    ],
)
def test_bad_options_are_refused(options, said):
    with pytest.raises(ValueError, match=said):
        apgd(**{"eps": 0.1, **options})
    with pytest.raises(ValueError, match=said):
        apgd_targeted(**{"eps": 0.1, **options})
