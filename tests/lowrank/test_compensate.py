import jax.numpy as jnp
import numpy as np
import pytest

import spartax as sx
from spartax import lowrank, prune, quantize
from spartax.records import Evidence, Layout
from tests import leaves, plugs

WEIGHTS = {p: w for p, w in plugs.draw().items() if p in ("dense", "conv")}
GIVEN = plugs.evidence(WEIGHTS)
CORRECT = lowrank.compensate(lowrank.svd(), lowrank.fixed(3))


def test_adds_the_best_correction_of_what_quantization_lost():
    codes, before = plugs.run(quantize.quantize(quantize.integer(3)), WEIGHTS, GIVEN)
    params, info = plugs.run(CORRECT, codes, GIVEN)
    for path, leaf in params.items():
        assert isinstance(leaf, sx.Sum)
        assert isinstance(leaf.terms[0], sx.Quantized)
        lost = np.asarray(WEIGHTS[path] - plugs.dense(codes[path])).reshape(-1, 20)
        tail = np.sqrt(np.sum(np.linalg.svd(lost, compute_uv=False)[3:] ** 2))
        now = np.linalg.norm(np.asarray(WEIGHTS[path] - plugs.dense(leaf)))
        np.testing.assert_allclose(now, tail, rtol=1e-4)
        assert info[path]["relative_error"] < before[path]["relative_error"]


@pytest.mark.parametrize("steps", ["2:4", "2:4 and int4"])
def test_eora_leaves_the_tail_of_the_whitened_residual_and_never_more_than_the_svd(steps):
    """`E |x^T (W - C)|^2` of five draws: with no correction, the SVD's of rank 3, and EoRA's, which is the least."""
    cut = prune.prune(prune.magnitude(), 0.5, pattern=prune.n_of_m(2, 4))
    codes = quantize.quantize(quantize.integer(4))
    eora, plain = (lowrank.compensate(made, lowrank.fixed(3)) for made in (lowrank.whitened(), lowrank.svd()))
    for seed in range(5):
        rng = np.random.default_rng(seed)
        weights = {"w": jnp.asarray(rng.normal(size=(16, 12)), jnp.float32)}
        rows = rng.normal(size=(100, 16)) @ rng.normal(size=(16, 16))
        moments = rows.T @ rows / 100
        given = Evidence({"w": Layout((0,), (1,))}, originals=weights, moments={"w": jnp.asarray(moments, jnp.float32)})
        inner, _ = plugs.run(cut, weights, given)
        inner = plugs.run(codes, inner, given)[0] if "int4" in steps else inner

        def lost(params, weights=weights, moments=moments):
            error = np.asarray(weights["w"] - plugs.dense(params["w"]), np.float64)
            return np.trace(error.T @ moments @ error)

        residual = np.asarray(weights["w"] - plugs.dense(inner["w"]), np.float64)
        tail = np.linalg.svd(np.linalg.cholesky(moments).T @ residual, compute_uv=False)[3:]
        none, by_svd, by_eora = lost(inner), *(lost(plugs.run(made, inner, given)[0]) for made in (plain, eora))
        assert none > by_svd > 1.05 * by_eora
        np.testing.assert_allclose(by_eora, np.sum(tail**2), rtol=2e-3)


@pytest.mark.parametrize(("rule", "ratio"), [(lowrank.byte_budget, 0.5), (lowrank.shared_energy, 0.75)])
def test_no_budget_is_spent_on_a_correction_that_is_not_made(rule, ratio):
    """The error of `a` is the larger by far: its directions are bought first, until another would make it dense."""
    errors = {"a": 100 * jnp.eye(12), "b": leaves.normal(40, 24, seed=1)}
    codes = {path: quantize_to_zero(w) for path, w in errors.items()}
    layouts = dict.fromkeys(errors, Layout((0,), (1,)))
    params, _ = plugs.run(lowrank.compensate(lowrank.svd(), rule(ratio)), codes, Evidence(layouts, originals=errors))
    low = {path: leaf.terms[1] for path, leaf in params.items()}
    assert low["a"].rank == 5  # 5 x (12 + 12) numbers of 144, six would be as many
    spent, budget = sum(4 * leaf.rank * sum(leaf.shape) for leaf in low.values()), ratio * 4 * (144 + 960)
    assert budget - 4 * (40 + 24) < spent <= budget


def quantize_to_zero(weight):
    """A compressed weight of which nothing is left."""
    return sx.Masked(weight, jnp.zeros(weight.shape, bool))


def test_tells_what_became_of_the_factors_and_of_the_bytes():
    codes, _ = plugs.run(quantize.quantize(quantize.integer(3)), WEIGHTS, GIVEN)
    rounded = quantize.quantize(quantize.integer(8))
    params, info = plugs.run(lowrank.compensate(lowrank.svd(), lowrank.fixed(3), rounded), codes, GIVEN)
    alone = plugs.run(
        rounded, {path: leaf.terms[1] for path, leaf in plugs.run(CORRECT, codes, GIVEN)[0].items()}, GIVEN
    )
    for path, leaf in params.items():
        assert info[path]["then"] == alone[1][path]
        assert "warning" not in info[path]
        assert isinstance(leaf.terms[1].left, sx.Quantized)
    params, info = plugs.run(lowrank.compensate(lowrank.svd(), lowrank.fixed(10)), codes, GIVEN)
    size = sx.nbytes(sx.pack(params["dense"]))  # 24 x 20 entries of 4 bytes, of which 10 directions are 1,760
    assert info["dense"]["warning"] == f"takes {size:,} bytes with its correction, dense 1,920"
    assert size > 1920


def test_is_fitted_anew_when_the_weight_under_it_changes():
    codes, _ = plugs.run(quantize.quantize(quantize.integer(3)), WEIGHTS, GIVEN)
    params, state = CORRECT.init(codes, GIVEN)
    other, _ = plugs.run(quantize.quantize(quantize.integer(2)), WEIGHTS, GIVEN)
    moved = {p: sx.Sum((other[p], leaf.terms[1])) for p, leaf in params.items()}
    refreshed, _, _ = CORRECT.update(moved, state, GIVEN)
    for path, leaf in plugs.run(CORRECT, other, GIVEN)[0].items():
        np.testing.assert_allclose(plugs.dense(refreshed[path]), plugs.dense(leaf), atol=1e-5)


def test_corrects_a_pruned_weight_under_an_outer_mask():
    """A later method may wrap the sum; the correction is still found."""
    masked, _ = plugs.run(prune.prune(prune.magnitude(), 0.5), WEIGHTS, GIVEN)
    params, state = CORRECT.init(masked, GIVEN)
    wrapped = {p: sx.Masked(w, jnp.ones(w.shape, bool)) for p, w in params.items()}
    again, _, info = CORRECT.update(wrapped, state, GIVEN)
    for path, w in again.items():
        np.testing.assert_allclose(plugs.dense(w), plugs.dense(params[path]), atol=1e-5)
        assert info[path]["rank"] == 3


def test_what_is_not_compressed_is_left_alone():
    params, info = plugs.run(CORRECT, WEIGHTS, GIVEN)
    assert all(params[p] is WEIGHTS[p] for p in params)
    assert "not compressed" in info["dense"]["skipped"]


def test_a_second_call_of_compress_has_no_error_to_compensate():
    x, apply = leaves.normal(16, 24), lambda p, x: x @ p["w"]
    first = sx.compress(
        apply, {"w": leaves.normal(24, 20, seed=1)}, quantize.quantize(quantize.integer(3)), batches=[x]
    )
    with pytest.raises(ValueError, match=r"w: no error to compensate.*same call of compress"):
        sx.compress(apply, first.params, lowrank.compensate(lowrank.svd(), lowrank.fixed(4)), batches=[x])
    with pytest.raises(ValueError, match="ranks must be a rule for errors"):
        lowrank.compensate(lowrank.svd(), lowrank.sensitivity(0.5))


def test_originals_are_needed():
    codes, _ = plugs.run(quantize.quantize(quantize.integer(3)), WEIGHTS, GIVEN)
    assert "originals" in CORRECT.needs
    with pytest.raises(ValueError, match="originals is needed"):
        CORRECT.init(codes, GIVEN._replace(originals=None))
