import contextlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import spartax as sx
from spartax import prune, quantize
from spartax.compress import chain
from spartax.quantize.codes import decode
from spartax.quantize.records import Scales
from spartax.quantize.roundings import _layer, gptq
from spartax.records import Evidence, Layout
from tests import plugs
from tests.oracles import golden, obs
from tests.quantize.layers import DENSE, better, encode, layer, loss_of, part

NUMBERS = golden.NUMBERS
INT3 = quantize.integer(3, symmetric=False)
GRIDS = {"integer": INT3, "groups": quantize.integer(3, 5), "nf4": quantize.nf4(10), "fp8": quantize.fp8()}


def spread(scales, shape):
    """Scale and zero point of every entry, outputs first."""
    zero = 0 if scales.zero is None else scales.zero
    return (np.asarray(np.broadcast_to(np.asarray(a), shape)).T for a in (scales.scale, zero))


@pytest.mark.parametrize("block", [1, 5, 128])
def test_golden_whatever_the_block(block):
    weights, given = golden.calibrated()
    codes, scales, notes = encode(quantize.gptq(block=block), weights["w"], INT3, part(given.moments["w"]))
    near = np.asarray(decode(codes, scales, INT3))
    np.testing.assert_allclose(golden.output_error(near), NUMBERS["gptq3_block1_err"], rtol=1e-4)
    np.testing.assert_allclose(near[:, 0], NUMBERS["gptq3_row0"], atol=1e-5)
    np.testing.assert_allclose(96 * notes["layer_loss"], NUMBERS["gptq3_block1_err"], rtol=1e-4)
    np.testing.assert_allclose(96 * notes["nearest_loss"], NUMBERS["rtn3_err"], rtol=1e-4)
    assert notes["fallbacks"] == notes["dead_inputs"] == 0
    assert notes["damping"] == pytest.approx(0.01)


def test_golden_of_the_order_of_activations():
    weights, given = golden.calibrated()
    codes, scales, _ = encode(quantize.gptq(order="activation"), weights["w"], INT3, part(given.moments["w"]))
    error = golden.output_error(np.asarray(decode(codes, scales, INT3)))
    np.testing.assert_allclose(error, NUMBERS["gptq3_actorder_err"], rtol=1e-4)


@pytest.mark.parametrize("block", [1, 4, 16])
@pytest.mark.parametrize("order", ["given", "activation"])
def test_against_direct_inverses(block, order):
    """20 columns: blocks of 16 leave a part of one."""
    kernel, moments = layer()
    codes, scales, _ = encode(quantize.gptq(0.02, order, block), kernel, INT3, part(moments))
    places = np.argsort(-np.diag(moments), kind="stable") if order == "activation" else None
    expected = obs.gptq(kernel.T, moments, *spread(scales, kernel.shape), INT3.codes, 0.02, places)
    np.testing.assert_array_equal(codes, better(expected.T, scales, INT3, kernel, moments))
    assert np.mean(expected == np.asarray(codes).T) > 0.9


@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)
def test_loses_less_than_nearest_on_any_grid(grid):
    """The losses of the report are those of the codes, and far apart: codes of nearest would not pass."""
    kernel, moments = layer()
    codes, scales, notes = encode(quantize.gptq(), kernel, grid, part(moments))
    nearest = quantize.nearest().round(jnp.asarray(kernel), scales, grid, part(moments))
    np.testing.assert_allclose(notes["layer_loss"], loss_of(codes, scales, grid, kernel, moments), rtol=1e-3)
    np.testing.assert_allclose(notes["nearest_loss"], loss_of(nearest, scales, grid, kernel, moments), rtol=1e-3)
    assert notes["layer_loss"] < 0.5 * notes["nearest_loss"]
    assert 0 <= notes["nearest_outputs"] < kernel.shape[1] / 2


def test_outputs_for_which_the_codes_are_the_nearest_ones_anyway_do_not_count_as_kept_back():
    """Inputs that are not correlated pass no error on, so that each entry gets its nearest code."""
    kernel, moments = layer()
    notes = encode(quantize.gptq(0.0), kernel, INT3, part(np.diag(np.diag(moments))))[2]
    assert (notes["moved"], notes["nearest_outputs"]) == (0, 0)
    assert notes["layer_loss"] == notes["nearest_loss"] > 0


def test_a_permutation_of_the_inputs_changes_nothing_in_the_order_of_activations():
    kernel, moments = layer()
    mixed = np.random.default_rng(1).permutation(20)
    rounding = quantize.gptq(order="activation")
    codes, *_ = encode(rounding, kernel, INT3, part(moments))
    other, *_ = encode(rounding, kernel[mixed], INT3, part(moments[np.ix_(mixed, mixed)]))
    np.testing.assert_array_equal(np.asarray(codes)[mixed], other)
    given, *_ = encode(quantize.gptq(), kernel[mixed], INT3, part(moments[np.ix_(mixed, mixed)]))
    assert (np.asarray(given) != other).any()


def test_layers_of_a_stack_and_groups_of_a_convolution_are_solved_one_by_one():
    kernels, moments = (np.stack(both) for both in zip(layer(0), layer(1)))
    rounding = quantize.gptq(order="activation", block=8)
    alone = [np.asarray(encode(rounding, k, INT3, part(m))[0]) for k, m in zip(kernels, moments)]
    stacked, _, notes = encode(rounding, kernels, INT3, part(moments, Layout((1,), (2,), (0,))))
    np.testing.assert_array_equal(stacked, alone)
    single = sum(encode(rounding, k, INT3, part(m))[2]["layer_loss"] for k, m in zip(kernels, moments))
    np.testing.assert_allclose(notes["layer_loss"], single, rtol=1e-5)
    grouped, *_ = encode(
        rounding, np.concatenate(kernels, 1)[None, None], INT3, part(moments, Layout((0, 1, 2), (3,), groups=2))
    )
    np.testing.assert_array_equal(grouped[0, 0], np.concatenate(alone, 1))


def test_convolution_is_its_matrix_of_patches():
    given = plugs.evidence({"conv": plugs.draw()["conv"]})
    transform = quantize.quantize(quantize.integer(3, 8), rounding=quantize.gptq())
    params, info = plugs.run(transform, {"conv": plugs.draw()["conv"]}, given)
    kernel, moments = np.asarray(plugs.draw()["conv"]), np.asarray(given.moments["conv"], np.float64)
    grid = quantize.integer(3, 8)
    scales = Scales(params["conv"].scale, None)
    scale = np.repeat(np.asarray(scales.scale), [8], axis=2) * np.ones_like(kernel)
    expected = obs.gptq(kernel.reshape(72, 20).T, moments, scale.reshape(72, 20).T, np.zeros((20, 72)), grid.codes)
    found = np.asarray(plugs.dense(params["conv"].codes)).reshape(72, 20).T
    assert np.mean(found == expected) > 0.99  # float32 moves a few halves
    assert info["conv"]["layer_loss"] < 0.5 * info["conv"]["nearest_loss"]


def test_entries_under_a_mask_stay_zero_and_their_error_is_passed_on():
    kernel, moments = layer()
    kept = np.random.default_rng(2).random(kernel.shape) < 0.6
    codes, scales, notes = encode(quantize.gptq(), kernel * kept, INT3, part(moments, kept=jnp.asarray(kept)))
    scale, zero = spread(scales, kernel.shape)
    expected = obs.gptq((kernel * kept).T, moments, scale, zero, INT3.codes, kept=kept.T)
    np.testing.assert_array_equal(codes, better(expected.T, scales, INT3, kernel * kept, moments, kept))
    assert np.mean(expected == np.asarray(codes).T) > 0.9
    assert not np.asarray(decode(codes, scales, INT3))[~kept].any()
    assert notes["layer_loss"] < 0.6 * notes["nearest_loss"]


def test_pruned_then_quantized():
    weights = {"dense": plugs.draw()["dense"]}
    both = chain(
        prune.prune(prune.magnitude(), 0.5), quantize.quantize(quantize.integer(4, 4), rounding=quantize.gptq())
    )
    params, info = plugs.run(both, weights, plugs.evidence(weights))
    assert isinstance(params["dense"], sx.Masked)
    assert not np.asarray(plugs.dense(params["dense"].weight))[~np.asarray(params["dense"].mask)].any()
    report = info["dense"]["steps"][1]
    assert 0 < report["layer_loss"] < report["nearest_loss"]


def test_inputs_that_are_always_zero_get_nearest_codes_and_do_not_damp_the_others():
    """Inputs a thousandth as large lead to the same codes, dead ones among them or not."""
    kernel, moments = layer()
    dead = moments.copy()
    dead[:, [3, 11]] = dead[[3, 11]] = 0
    codes, scales, notes = encode(quantize.gptq(), kernel, INT3, part(dead))
    assert notes["dead_inputs"] == 2
    small, *_ = encode(quantize.gptq(), kernel, INT3, part(1e-6 * dead))
    np.testing.assert_array_equal(codes, small)
    nearest = np.asarray(quantize.nearest().round(jnp.asarray(kernel), scales, INT3, part(dead)))
    np.testing.assert_array_equal(np.asarray(codes)[[3, 11]], nearest[[3, 11]])
    alive = np.setdiff1d(np.arange(20), [3, 11])
    scale, zero = spread(scales, kernel.shape)
    moments = moments[np.ix_(alive, alive)]
    expected = obs.gptq(kernel[alive].T, moments, scale[:, alive], zero[:, alive], INT3.codes)
    np.testing.assert_array_equal(np.asarray(codes)[alive].T, expected)


def test_damping_climbs_until_the_moments_can_be_factored():
    kernel, _ = layer()
    ones = np.ones((20, 20))  # rank one: with no damping the second pivot is zero
    _, _, notes = encode(quantize.gptq(damping=0.0), kernel, INT3, part(ones))
    assert notes["damping"] == pytest.approx(0.01)
    assert notes["fallbacks"] == 0
    assert notes["layer_loss"] < 0.5 * notes["nearest_loss"]
    _, _, notes = encode(quantize.gptq(), kernel, INT3, part(ones - 0.045 * np.eye(20)))  # smallest eigenvalue -0.045
    assert notes["damping"] == pytest.approx(0.05)
    _, _, notes = encode(quantize.gptq(), kernel, INT3, part(ones - 0.3 * np.eye(20)))
    assert notes["damping"] == 1


def test_what_cannot_be_factored_goes_to_nearest_alone_and_says_so():
    """The second matrix of a stack is none of an input; the first is solved as if it were alone."""
    kernels, moments = np.stack([layer()[0], layer(1)[0]]), np.stack([layer()[1], 2 * np.eye(20) - np.ones((20, 20))])
    given = part(moments, Layout((1,), (2,), (0,)))
    with pytest.warns(UserWarning, match="gptq: 1 of 2 matrices of w get the nearest codes"):
        codes, scales, notes = encode(quantize.gptq(), kernels, INT3, given)
    assert notes["fallbacks"] == 1
    nearest = quantize.nearest().round(jnp.asarray(kernels), scales, INT3, given)
    np.testing.assert_array_equal(codes[1], nearest[1])
    np.testing.assert_array_equal(codes[0], encode(quantize.gptq(), kernels[0], INT3, part(moments[0]))[0])


def test_a_solution_worse_than_nearest_is_not_kept_output_by_output():
    """A solver that is right for even outputs, and takes the smallest code for odd ones."""

    def half(problem, options):
        found = gptq._solve(problem, options)
        low = jnp.full_like(found.codes, problem.grid.codes[0])
        return found._replace(codes=jnp.where(jnp.arange(12)[:, None] % 2 == 0, found.codes, low))

    kernel, moments = layer()
    options = gptq.Options((0.01,), "given", 128)
    codes, scales, notes = encode(_layer.by_layer("half", half, options), kernel, INT3, part(moments))
    nearest = quantize.nearest().round(jnp.asarray(kernel), scales, INT3, part(moments))
    whole, *_ = encode(quantize.gptq(), kernel, INT3, part(moments))
    np.testing.assert_array_equal(codes[:, 1::2], nearest[:, 1::2])
    np.testing.assert_array_equal(codes[:, ::2], whole[:, ::2])
    np.testing.assert_allclose(notes["layer_loss"], loss_of(codes, scales, INT3, kernel, moments), rtol=1e-3)


@pytest.mark.parametrize("wrong", [8, 9])
def test_nearest_for_three_quarters_of_the_outputs_that_differ_warns(wrong):
    """A solver that takes the smallest code for so many of twelve outputs, all of which differ from nearest."""

    def few(problem, options):
        found = gptq._solve(problem, options)
        low = jnp.full_like(found.codes, problem.grid.codes[0])
        return found._replace(codes=jnp.where(jnp.arange(12)[:, None] < wrong, low, found.codes))

    rounding = _layer.by_layer("few", few, gptq.Options((0.01,), "given", 128))
    told = "few: w keeps the nearest codes for 9 of the 12 outputs"
    with pytest.warns(UserWarning, match=told) if wrong == 9 else contextlib.nullcontext():
        _, _, notes = encode(rounding, layer()[0], INT3, part(layer()[1]))
    assert notes["nearest_outputs"] == wrong


def test_jit_is_eager_and_bfloat16_weights_are_solved_in_float32():
    kernel, moments = layer()
    given = part(moments)
    codes, scales, _ = encode(quantize.gptq(), kernel, INT3, given)
    traced = jax.jit(lambda w, s: quantize.gptq().round(w, s, INT3, given))(jnp.asarray(kernel), scales)
    np.testing.assert_array_equal(codes, traced)
    half = jnp.asarray(kernel, jnp.bfloat16)
    transform = quantize.quantize(INT3, rounding=quantize.gptq())
    params, _ = plugs.run(transform, {"w": half}, given.evidence)
    wide, *_ = encode(quantize.gptq(), half.astype(jnp.float32), INT3, given)
    np.testing.assert_array_equal(plugs.dense(params["w"].codes), wide)


def test_the_program_does_not_grow_with_the_layer():
    def equations(inputs):
        shapes = jax.ShapeDtypeStruct((inputs, 8), jnp.float32), jax.ShapeDtypeStruct((inputs, inputs), jnp.float32)

        def codes(kernel, moments):
            given = part(None)._replace(evidence=Evidence({"w": DENSE}, moments={"w": moments}))
            scales = Scales(jnp.ones((1, 8)), None)
            return quantize.gptq(order="activation", block=16).round(kernel, scales, quantize.integer(4), given)

        return len(str(jax.make_jaxpr(codes)(*shapes)).splitlines())

    assert equations(128) == equations(512)


def test_bad_input_is_refused_by_its_path():
    kernel, moments = layer()
    for given, message in [
        (part(None), "moments is needed by this method"),
        (part(np.zeros((20, 20))), "gptq: the input of w is zero everywhere"),
        (part(np.full((20, 20), np.nan)), "gptq: the moments of w holds NaN"),
        (part(moments[:4, :4]), r"gptq: w makes matrices \(12, 20\); got moments of shape \(4, 4\)"),
        (part(moments)._replace(path="other"), "gptq: the moments of other are missing"),
        (part(moments, alone=False), "gptq: w is a sum or a product of arrays"),
    ]:
        with pytest.raises(ValueError, match=message):
            encode(quantize.gptq(), kernel, INT3, given)
    for wrong in ({"damping": 2.0}, {"order": "activations"}, {"block": 0}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            quantize.gptq(**wrong)


@pytest.mark.parametrize("rank", [4, 20])
def test_factors_are_refused(rank):
    """Also those of full rank, which have the shape of the weight."""
    rng = np.random.default_rng(0)
    left, right = (jnp.asarray(rng.normal(size=size), jnp.float32) for size in ((20, rank), (rank, 20)))
    transform = quantize.quantize(INT3, rounding=quantize.gptq())
    with pytest.raises(ValueError, match="gptq: w is a sum or a product"):
        plugs.run(transform, {"w": sx.LowRank(left, right)}, part(layer()[1]).evidence)


@pytest.mark.parametrize(
    ("pattern", "kind"), [(prune.n_of_m(2, 4), sx.NMSparse), (prune.block((8, 8)), sx.BlockSparse)]
)
def test_packed_weights_are_refused_with_the_order_to_take(pattern, kind):
    network, x = lambda p, x: x @ p["w"], jnp.ones((2, 32))
    params = {"w": jnp.asarray(np.random.default_rng(0).normal(size=(32, 64)), jnp.float32)}
    cut = sx.compress(network, params, prune.prune(prune.magnitude(), 0.5, pattern=pattern), batches=[x])
    small = sx.pack(cut.params)
    assert isinstance(small["w"], kind)
    methods = [quantize.quantize(INT3, rounding=step) for step in (quantize.gptq(), quantize.adaround(2))]
    for method in (*methods, quantize.quantize(INT3, quantize.output_error())):
        with pytest.raises(ValueError, match=r"w is .* or packed, .* what is pruned is quantized before sx.pack"):
            sx.compress(network, small, method, batches=[x])
