import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from spartax.attacks import losses, objective, threats
from spartax.attacks.apgd import apgd, begin, iterate, prepare
from spartax.attacks.apgd_l1 import equal_windows, largest, ranked, stages
from spartax.attacks.apgd_rules import shrinking_windows
from spartax.attacks.apgd_targeted import apgd_targeted, dlr_or_margin, ranked_class
from spartax.attacks.network import example_keys, network
from spartax.attacks.resumable import Rows
from tests.attacks import golden, nets

EPS = {"linf": 0.012, "l2": 0.12, "l1": 1.2}
TITLES = {"linf": "Linf", "l2": "L2", "l1": "L1"}
LOSSES = {"ce": losses.cross_entropy, "dlr": losses.dlr, "t": dlr_or_margin}


def golden_start(norm):
    if norm == "l1":
        return threats.threat("l1", EPS["l1"]).project(golden.X + 0.1 * golden.NOISE, golden.X)
    return jnp.clip(golden.X + EPS[norm] * threats.unit(golden.NOISE, norm), 0, 1)


@functools.cache
def golden_runs(norm, kind):
    """`{steps: state}` of 20 and 100 steps from the golden start; the targeted runs for ranks 2 and 5 at once."""
    copies = 2 if kind == "t" else 1
    x0, y, x_init = (jnp.concatenate([a] * copies) for a in (golden.X, golden.Y, golden_start(norm)))
    logits, model = golden.logits_fn(golden.X), network(golden.logits_fn)
    order = jnp.argsort(logits, axis=1, descending=True)  # the golden rank counts all classes, also the right one
    targets = jnp.concatenate([order[:, 1], order[:, 4]]) if kind == "t" else y
    rows = Rows(x0, y, jax.vmap(jax.random.key)(jnp.arange(len(y))), None)
    prepared = {
        steps: prepare(
            EPS[norm], norm, LOSSES[kind], steps, 0.75, 1, True, False, targeted=kind == "t", given_start=True
        )
        for steps in (20, 100)
    }

    @jax.jit
    def run(windows, steps):  # the table is an argument here, so that both lengths share one compilation
        settings = prepared[100]._replace(rule=prepared[100].rule._replace(windows=windows))
        state = begin(settings, rows, targets, 0, x_init)
        return jax.lax.fori_loop(0, steps + 1, lambda _, state: iterate(settings, model, state), state)

    tables = {steps: np.zeros(101, np.int32) for steps in prepared}
    for steps, settings in prepared.items():
        tables[steps][: steps + 1] = settings.rule.windows
    return {steps: run(table, steps) for steps, table in tables.items()}


def golden_run(norm, kind, steps):
    """What one golden run found, and the golden record."""
    state = golden_runs(norm, kind[:1] if kind[0] == "t" else kind)[steps]
    rows = slice(64, 128) if kind == "t5" else slice(0, 64)
    state = jax.tree.map(lambda leaf: np.asarray(leaf)[rows], state._replace(keys=state.number))
    return state, golden.GOLDEN["apgd"][f"{TITLES[norm]}-eps{EPS[norm]}-{kind}-T{steps}"]


@pytest.mark.parametrize("steps", [20, 100])
@pytest.mark.parametrize("kind", ["ce", "dlr", "t2", "t5"])
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
@pytest.mark.parametrize("kind", ["ce", "dlr", "t2", "t5"])
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


def test_ranked_is_sorting():
    values = np.abs(np.random.default_rng(0).normal(size=(6, 5, 7))).astype(np.float32)
    values[0], values[1, 0] = 0.0, 1.5  # all equal; ties
    rank = jnp.array([0, 3, 34, 17, 0, 33])
    expected = np.sort(values.reshape(6, -1), axis=1)[np.arange(6), rank]
    np.testing.assert_array_equal(jax.jit(ranked)(jnp.asarray(values), rank), expected)


def test_largest_keeps_the_part_of_most_gradient():
    gradient = jnp.array([[1.0, -4.0, 2.0, -3.0]] * 3)
    kept = largest(gradient, jnp.array([0.5, 0.0, 1.0]))
    np.testing.assert_array_equal(kept, [[0, -1, 0, -1], [0, -1, 0, 0], [1, -1, 1, -1]])


def test_targets_go_down_the_clean_logits_without_the_label():
    logits = jnp.array([[3.0, 1.0, 2.0, 0.0], [3.0, 1.0, 2.0, 0.0]])
    y = jnp.array([0, 2])
    assert [ranked_class(logits, y, rank).tolist() for rank in (1, 2, 3)] == [[2, 0], [1, 1], [3, 3]]


def test_first_comparison_is_the_only_difference_of_parity():
    logits_fn, x, y = nets.convolution()
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


def test_rows_can_be_taken_out_between_iterations():
    logits_fn, x, y = nets.convolution()
    attack = apgd(0.03, steps=12)
    model, rows = network(logits_fn), Rows(x, y, example_keys(jax.random.key(0), jnp.arange(8)), None)
    advance = jax.jit(lambda state, count: attack.advance(model, state, count))
    halfway = advance(attack.start(model, rows, 0), 6)
    whole = attack.outcome(advance(halfway, attack.steps - 6))
    kept = jnp.array([6, 1, 4])
    part = attack.outcome(advance(jax.tree.map(lambda leaf: leaf[kept], halfway), attack.steps - 6))
    np.testing.assert_array_equal(part.broken, whole.broken[kept])
    np.testing.assert_array_equal(part.broken_at, whole.broken_at[kept])
    np.testing.assert_allclose(part.best.x, whole.best.x[kept], atol=1e-6)


def test_outcome_tells_the_first_success_and_its_iteration():
    logits_fn, x, y = nets.convolution()
    attack = apgd(0.1, steps=10, x_init=x)
    model, rows = network(logits_fn), Rows(x, y, example_keys(jax.random.key(0), jnp.arange(8)), None)
    step = jax.jit(lambda state: attack.advance(model, state, 1))
    state, first = attack.start(model, rows, 0), {}
    for number in range(attack.steps):
        seen, state = state.x, step(state)
        for row in np.flatnonzero(np.asarray(jnp.argmax(logits_fn(seen), 1) != y)):
            first.setdefault(int(row), (number, np.asarray(seen[row])))
    found = attack.outcome(state)
    assert len(first) >= 4
    assert [first.get(row, (-1,))[0] for row in range(8)] == found.broken_at.tolist()
    for row, (_, image) in first.items():
        np.testing.assert_array_equal(found.x[row], image)
    assert bool(jnp.all((jnp.argmax(logits_fn(found.best.x), 1) != y) == found.broken))


def test_targets_share_one_compilation():
    logits_fn, _, x, y = nets.linear()

    def traces(**options):
        seen = []

        def counted(x):
            seen.append(x.shape)
            return logits_fn(x)

        nets.run(apgd_targeted(0.01, steps=2, **options), counted, x, y)
        return len(seen)

    assert traces(targets=4, restarts=2) == traces(targets=1)


@pytest.mark.parametrize("classes", [2, 3])
def test_few_classes_use_the_margin(classes):
    logits_fn, _, x, y = nets.linear(classes=classes, scale=2.0)
    x_adv = nets.run(apgd_targeted(0.3, steps=10), logits_fn, x, y)
    assert bool(jnp.all(jnp.argmax(logits_fn(x_adv), 1) != y))


def test_large_radii_first_ends_inside_the_small_one():
    logits_fn, x, y = nets.convolution()
    attack = apgd(2.0, "l1", steps=20, large_eps=True)
    model, rows = network(logits_fn), Rows(x, y, example_keys(jax.random.key(0), jnp.arange(8)), None)
    assert attack.steps == 7 + 7 + 9
    advance = jax.jit(lambda state, count: attack.advance(model, state, count))
    early = advance(attack.start(model, rows, 0), 14)
    assert float(threats.lengths(early.x_best - x, "l1").max()) > 3.9  # the second stage, radius 4
    assert not bool(early.broken.any())
    late = advance(early, 9)
    assert float(threats.lengths(late.x_best - x, "l1").max()) <= 2.0 + 1e-6
    assert bool(jnp.all(jnp.where(late.broken, late.broken_at >= 14, late.broken_at == -1)))
    assert float(threats.lengths(late.x_adv - x, "l1").max()) <= 2.0 + 1e-6


def test_expectation_over_draws_is_the_mean_gradient_with_the_last_draw_kept():
    logits_fn, _, x, y = nets.linear()

    def noisy(x, key):
        return logits_fn(x) * (1.0 + (jax.random.key_data(key)[0] % 5).astype(float))

    keys, model = example_keys(jax.random.key(0), jnp.arange(8)), network(noisy)
    mean = objective.look(model, losses.margin, x, y, keys, eot=3)
    singles = [objective.forward(model, losses.margin, x, y, objective.fold(keys, draw)) for draw in range(3)]
    np.testing.assert_allclose(mean.loss, singles[2].loss, rtol=1e-5)
    scale = sum(s.loss for s in singles) / 3 / losses.margin(logits_fn(x), y)
    plain = jax.grad(lambda x: losses.margin(logits_fn(x), y).sum())(x)
    np.testing.assert_allclose(mean.gradient, plain * threats.per_example(scale, x), rtol=1e-4)


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
