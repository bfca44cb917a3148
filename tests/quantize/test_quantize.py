import jax
import jax.numpy as jnp
import numpy as np
import pytest

import spartax as sx
from spartax import checkpoint, lowrank, prune, quantize
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


# for 256 x 512 entries: bits of each, and bytes of the scales and zero points
ON_DISK = {
    "int8": (quantize.integer(8), 8, 4 * 512),
    "int4 in groups": (quantize.integer(4, 64, scale_dtype="float16"), 4, 2 * 4 * 512),
    "int3 asymmetric": (quantize.integer(3, symmetric=False), 3, (4 + 1) * 512),
    "int2": (quantize.integer(2), 2, 4 * 512),
    "ternary": (quantize.ternary(), 2, 4 * 512),
    "binary": (quantize.binary(), 1, 4 * 512),
    "nf4": (quantize.nf4(), 4, 4 * 4 * 512),
    "fp8": (quantize.fp8(), 8, 4 * 512),
    "mxfp4": (quantize.mx(), 4, 8 * 512),
    "mxfp8": (quantize.mx("e4m3"), 8, 8 * 512),
    "power of two": (quantize.power_of_two(), 4, 4 * 512),
    "fixed point": (quantize.fixed_point(6, 5), 6, 4),
}


@pytest.mark.parametrize("name", ON_DISK)
def test_a_checkpoint_of_each_grid_takes_its_bits_and_scales_on_disk(tmp_path, name):
    grid, bits, rest = ON_DISK[name]
    weight = {"w": jnp.asarray(np.random.default_rng(0).normal(size=(256, 512)), jnp.float32)}
    params, _ = plugs.run(quantize.quantize(grid), weight, Evidence({"w": Layout((0,), (1,))}))
    small = sx.pack(params)
    assert sx.nbytes(small) == 256 * 512 * bits // 8 + rest
    checkpoint.save(tmp_path / "c", small)
    assert checkpoint.size_on_disk(tmp_path / "c") <= sx.nbytes(small) + 4096  # names and shapes


def test_a_bias_takes_up_the_mean_error_of_codes():
    """Also of codes under a mask: `b + E x (w - dense)`, so that every output is right on average."""
    x = jnp.asarray(np.random.default_rng(0).normal(size=(64, 24)) + 1, jnp.float32)
    params = {"w": WEIGHTS["dense"], "b": jnp.arange(20.0)}
    apply = lambda p, x: x @ p["w"] + p["b"]  # noqa: E731
    two = quantize.quantize(quantize.integer(2))
    mean = lambda p: np.mean(np.asarray(apply(sx.dense(p), x), np.float64), axis=0)  # noqa: E731
    for steps in ((two,), (prune.prune(prune.magnitude(), 0.5), two)):
        plain = sx.compress(apply, params, *steps, batches=[x])
        out = sx.compress(apply, params, *steps, sx.correct_bias(), batches=[x])
        np.testing.assert_array_equal(sx.dense(out.params["w"]), sx.dense(plain.params["w"]))
        moved = np.mean(x, axis=0) @ (np.asarray(params["w"]) - np.asarray(sx.dense(out.params["w"])))
        np.testing.assert_allclose(out.params["b"], params["b"] + moved, atol=1e-4)
        np.testing.assert_allclose(mean(out.params), mean(params), atol=1e-4)
        assert np.abs(mean(plain.params) - mean(params)).max() > 0.3
        assert out.info["w"]["steps"][-1]["bias"] == "b"


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
