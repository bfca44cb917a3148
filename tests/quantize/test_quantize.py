import jax
import jax.numpy as jnp
import numpy as np
import pytest

import spartax as sx
from spartax import lowrank, prune, quantize
from spartax.arrays import Packed
from spartax.records import Evidence, Layout
from tests import plugs
from tests.oracles import quantize as oracle

WEIGHTS, GIVEN = plugs.draw(), plugs.evidence()


def test_bytes_are_those_of_packed_codes_and_scales():
    grid = quantize.integer(4, group=4, scale_dtype="float16")
    weights = {p: WEIGHTS[p] for p in ("dense", "conv")}
    params, _ = plugs.run(quantize.quantize(grid), weights, plugs.evidence(weights))
    assert sx.nbytes(params["dense"]) == 24 * 20 // 2 + 2 * 6 * 20
    assert sx.nbytes(params["conv"]) == 9 * 8 * 20 // 2 + 2 * 9 * 2 * 20
    assert isinstance(params["dense"].codes.value, Packed)
    eight, _ = plugs.run(quantize.quantize(quantize.integer(8)), weights, plugs.evidence(weights))
    assert sx.nbytes(eight["dense"]) == 24 * 20 + 4 * 20


def test_every_layout_along_its_own_axes():
    params, _ = plugs.run(quantize.quantize(quantize.integer(4, group=4)), WEIGHTS, GIVEN)
    shapes = {"dense": (6, 20), "conv": (3, 3, 2, 20), "stack": (2, 6, 16), "outputs_first": (24, 5)}
    for path, shape in shapes.items():
        near, _, _ = oracle.round_trip(np.asarray(WEIGHTS[path]), shape, 4, True)
        assert params[path].scale.shape == shape
        np.testing.assert_allclose(plugs.dense(params[path]), near, atol=1e-5)


def test_scales_of_a_masked_weight_are_those_of_its_kept_entries():
    weight = jnp.array([[8.0, 1.0], [2.0, 1.0], [4.0, 0.5], [1.0, 0.25]])
    leaf = sx.Masked(weight, jnp.array([[False, True]] + [[True, True]] * 3))
    params, _ = plugs.run(quantize.quantize(quantize.integer(8)), {"w": leaf}, Evidence({"w": Layout((0,), (1,))}))
    quantized = params["w"]
    assert isinstance(quantized, sx.Masked)
    np.testing.assert_allclose(quantized.weight.scale, np.array([[4.0, 1.0]]) / 127)
    assert int(plugs.dense(quantized.weight.codes)[0, 0]) == 0
    np.testing.assert_allclose(plugs.dense(quantized), plugs.dense(leaf), atol=4 / 254)


def test_codes_follow_a_mask_that_changes():
    """The floats are kept: an entry that comes back has its own code again."""
    given = Evidence({"w": Layout((0,), (1,))})
    weight = jnp.array([[8.0], [2.0]])
    transform = quantize.quantize(quantize.integer(8))
    params, state = transform.init({"w": sx.Masked(weight, jnp.array([[False], [True]]))}, given)
    params, state, _ = transform.update(params, state, given)
    np.testing.assert_allclose(plugs.dense(params["w"]), [[0.0], [2.0]])
    back = {"w": sx.Masked(params["w"].weight, jnp.array([[True], [True]]))}
    params, _, _ = transform.update(back, state, given)
    np.testing.assert_allclose(plugs.dense(params["w"]), [[8.0], [2.0]], atol=8 / 254)


@pytest.mark.parametrize("path", ["dense", "conv", "stack", "outputs_first"])
def test_factors_have_axes_of_their_own(path):
    given = plugs.evidence({path: WEIGHTS[path]})
    low, _ = plugs.run(lowrank.factorize(lowrank.svd(), lowrank.fixed(4)), {path: WEIGHTS[path]}, given)
    params, _ = plugs.run(quantize.quantize(quantize.integer(8, group=4)), low, given)
    shapes = {
        "dense": ((6, 4), (1, 20)),
        "conv": ((3, 3, 2, 4), (1, 20)),
        "stack": ((2, 6, 4), (2, 1, 16)),
        "outputs_first": ((24, 1), (4, 5)),
    }
    leaf = params[path]
    assert isinstance(leaf, sx.LowRank)
    assert (leaf.left.scale.shape, leaf.right.scale.shape) == shapes[path]
    np.testing.assert_allclose(plugs.dense(leaf), plugs.dense(low[path]), atol=0.1)


def test_every_term_of_a_sum():
    leaf = sx.Sum((sx.LowRank(jnp.ones((4, 2)), jnp.ones((2, 6))), jnp.full((4, 6), 3.0)))
    params, _ = plugs.run(quantize.quantize(quantize.integer(4)), {"w": leaf}, Evidence({"w": Layout((0,), (1,))}))
    assert [type(t).__name__ for t in params["w"].terms] == ["LowRank", "Quantized"]
    np.testing.assert_allclose(plugs.dense(params["w"]), np.full((4, 6), 5.0), rtol=1e-5)


def test_after_a_correction_was_added_only_its_own_codes_are_refreshed():
    given = plugs.evidence({"dense": WEIGHTS["dense"]})
    transform = quantize.quantize(quantize.integer(4))
    params, state = transform.init({"dense": WEIGHTS["dense"]}, given)
    params, state, _ = transform.update(params, state, given)
    summed, _ = plugs.run(lowrank.compensate(lowrank.svd(), lowrank.fixed(2)), params, given)
    again, _, _ = transform.update(summed, state, given)
    jax.tree.map(np.testing.assert_array_equal, again, summed)


def test_twice_is_an_error_and_names_the_path():
    params, _ = plugs.run(quantize.quantize(quantize.integer(8)), WEIGHTS, GIVEN)
    with pytest.raises(ValueError, match="dense: this weight is quantized already"):
        quantize.quantize(quantize.integer(8)).init(params, GIVEN)


def test_a_group_that_does_not_divide_names_the_path():
    with pytest.raises(ValueError, match=r"conv: group must divide the input-feature axis, which has 8 .* group=12"):
        quantize.quantize(quantize.integer(4, group=12)).init(WEIGHTS, GIVEN)


def test_dtype_of_the_weight_is_kept():
    weights = {"dense": WEIGHTS["dense"].astype(jnp.bfloat16)}
    params, _ = plugs.run(quantize.quantize(quantize.integer(8)), weights, plugs.evidence(weights))
    assert plugs.dense(params["dense"]).dtype == jnp.bfloat16


def test_prune_then_quantize_packs_to_kept_codes_and_bits():
    given = plugs.evidence({"dense": WEIGHTS["dense"]})
    masked, _ = plugs.run(prune.prune(prune.magnitude(), 0.75), {"dense": WEIGHTS["dense"]}, given)
    params, _ = plugs.run(quantize.quantize(quantize.integer(8)), masked, given)
    assert sx.nbytes(sx.pack(params["dense"])) == 480 // 4 + 480 // 8 + 4 * 20
