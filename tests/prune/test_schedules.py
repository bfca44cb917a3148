"""When pruning happens: known numbers, and what `prune` does with them."""

import jax.numpy as jnp
import numpy as np
import pytest

import spartax as sx
from spartax import prune, quantize
from spartax.records import Evidence, Layout
from tests import plugs
from tests.oracles import golden

GIVEN = Evidence({"w": Layout((0,), (1,))})
KERNEL = {"w": jnp.array([[1.0, 2.0, 3.0, 4.0], [5.0, 6.0, 7.0, 8.0]])}


def due(schedule, steps=40):
    return [step for step in range(steps) if schedule.due(step)]


def train(transform, weights_by_step):
    """Update at these steps, the weights replaced before each: the masks by step."""
    params, state = transform.init(KERNEL, GIVEN)
    masks = {}
    for step, weight in weights_by_step.items():
        leaf = params["w"]
        params = {"w": leaf if weight is None else sx.Masked(jnp.asarray(weight), leaf.mask)}
        params, state, _ = transform.update(params, state, GIVEN._replace(step=step))
        masks[step] = np.asarray(params["w"].mask)
    return params, masks


def test_cubic_golden():
    schedule = prune.cubic(100, 500, every=100)
    found = [schedule.sparsity(0.9, step) for step in (100, 200, 300, 400, 500)]
    np.testing.assert_allclose(found, golden.NUMBERS["cubic_0_to_0.9"], atol=1e-6)
    assert schedule.sparsity(0.9, 0) == 0
    assert schedule.sparsity(0.9, 399) == schedule.sparsity(0.9, 300)  # frozen between refreshes
    assert schedule.sparsity(0.9, 10_000) == 0.9


def test_cubic_starts_at_its_initial_sparsity_and_ends_with_a_shorter_interval():
    schedule = prune.cubic(2, 13, every=4, initial=0.5)
    assert due(schedule) == [0, 2, 6, 10, 13]
    assert schedule.sparsity(0.9, 1) == 0.5
    np.testing.assert_allclose(schedule.sparsity(0.9, 6), 0.9 - 0.4 * (7 / 11) ** 3)
    assert schedule.sparsity(0.3, 1) == 0.3  # not beyond the final one


def test_exponential_golden():
    """The densities of five rounds to 1 %, as SynFlow keeps them."""
    schedule = prune.exponential(5, every=10, begin=3)
    kept = [1 - schedule.sparsity(0.99, 3 + 10 * k) for k in range(5)]
    np.testing.assert_allclose(kept, golden.NUMBERS["synflow_keep_rho0.01_n5"], atol=1e-6)
    assert due(schedule, 100) == [3, 13, 23, 33, 43]
    assert schedule.sparsity(0.99, 2) == 0


def test_ac_dc_alternates_and_ends_sparse():
    schedule = prune.ac_dc(warmup=2, sparse=3, dense=2, end=11)
    phases = "".join("s" if schedule.sparsity(0.9, step) else "d" for step in range(16))
    assert phases == "ddsssddsssdsssss"
    assert due(schedule, 16) == [0, 2, 5, 7, 10, 11]


def test_one_shot_and_constant():
    assert due(prune.one_shot(3)) == [3]
    assert [prune.one_shot(3).sparsity(0.9, step) for step in (2, 3)] == [0, 0.9]
    assert due(prune.constant()) == [0]
    assert due(prune.constant(15)) == [0, 15, 30]


def test_prune_follows_the_step_and_outside_training_is_final():
    transform = prune.prune(prune.magnitude(), 0.75, schedule=prune.cubic(1, 3, every=1))
    assert [transform.due(step) for step in range(5)] == [True, True, True, True, False]
    _, masks = train(transform, dict.fromkeys(range(4)))
    kept = [8, 8, round(8 * (1 - 0.75 * 7 / 8)), 2]
    assert [int(mask.sum()) for mask in masks.values()] == kept
    assert plugs.run(transform, KERNEL, GIVEN)[1]["w"]["kept"] == 2


def test_removed_entries_come_back_with_their_values_unless_told_otherwise():
    """At the second refresh the first entry, removed before, holds the largest value under its mask."""
    grown = np.array([[9.0, 2.0, 3.0, 4.0], [5.0, 6.0, 7.0, 8.0]], np.float32)
    steps = {0: None, 1: grown}
    back, _ = train(prune.prune(prune.magnitude(), 0.5, schedule=prune.constant(1)), steps)
    np.testing.assert_array_equal(sx.dense(back["w"]), [[9, 0, 0, 0], [0, 6, 7, 8]])
    kept, _ = train(prune.prune(prune.magnitude(), 0.5, schedule=prune.constant(1), regrow=False), steps)
    np.testing.assert_array_equal(sx.dense(kept["w"]), [[0, 0, 0, 0], [5, 6, 7, 8]])


def test_what_never_regrows_only_shrinks():
    rng = np.random.default_rng(0)
    schedule = prune.exponential(4)
    transform = prune.prune(prune.magnitude(), 0.875, prune.pooled(0), schedule=schedule, regrow=False)
    _, masks = train(transform, {k: rng.normal(size=(2, 4)).astype(np.float32) for k in range(4)})
    for step in range(1, 4):
        assert not (masks[step] & ~masks[step - 1]).any()
    assert [int(m.sum()) for m in masks.values()] == [round(8 * 0.125 ** (k / 4)) for k in (1, 2, 3, 4)]


def test_a_dense_phase_of_ac_dc_starts_from_zero():
    """Whatever an optimizer did to removed entries in the sparse phase is forgotten."""
    transform = prune.prune(prune.magnitude(), 0.5, schedule=prune.ac_dc(0, 1, 1, 9))
    drifted = np.full((2, 4), 3.0, np.float32)
    params, masks = train(transform, {0: None, 1: drifted})
    assert masks[1].all()
    np.testing.assert_array_equal(params["w"].weight, np.where(masks[0], 3.0, 0.0))


def test_a_dense_phase_fits_any_pattern():
    transform = prune.prune(prune.magnitude(), pattern=prune.n_of_m(1, 2), schedule=prune.one_shot(1))
    _, masks = train(transform, dict.fromkeys(range(2)))
    assert [int(m.sum()) for m in masks.values()] == [8, 4]


def test_bad_arguments():
    with pytest.raises(ValueError, match="end must be an integer of at least 6; got 5"):
        prune.cubic(5, 5)
    with pytest.raises(ValueError, match=r"initial must be in \[0.0, 1.0\); got 1.0"):
        prune.cubic(0, 5, initial=1.0)
    with pytest.raises(ValueError, match="sparse must be an integer of at least 1; got 0"):
        prune.ac_dc(0, 0, 1, 2)
    with pytest.raises(ValueError, match="end must be an integer of at least 4; got 2"):
        prune.ac_dc(4, 1, 1, 2)
    with pytest.raises(ValueError, match="rounds must be an integer"):
        prune.exponential(0)
    with pytest.raises(ValueError, match="at must be an integer"):
        prune.one_shot(-1)
    with pytest.raises(ValueError, match="every must be an integer"):
        prune.constant(0)


def test_a_criterion_that_moves_weights_must_let_them_regrow():
    moving = prune.magnitude()._replace(solve=lambda weights, evidence: (weights, lambda *_: None))
    with pytest.raises(ValueError, match="regrow must be True for a criterion that moves"):
        prune.prune(moving, 0.5, regrow=False)


def test_codes_cannot_be_forgotten():
    codes, _ = plugs.run(quantize.quantize(quantize.integer(4)), KERNEL, GIVEN._replace(originals=KERNEL))
    transform = prune.prune(prune.magnitude(), 0.5, schedule=prune.ac_dc(0, 1, 1, 2))
    params, state = transform.init(codes, GIVEN)
    with pytest.raises(ValueError, match="w: this schedule sets removed entries to zero; a Quantized"):
        transform.update(params, state, GIVEN._replace(step=0))
