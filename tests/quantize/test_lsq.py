"""LSQ and PACT: goldens, gradients by formula and by differences, where steps begin, what `pack` keeps."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import spartax as sx
from spartax import quantize
from spartax.arrays import FakeInputs, FakeQuantized, LearntClip, LearntStep
from spartax.records import Evidence, Layout
from tests import plugs

VALUES = [-3, -0.6, 0.2, 0.7, 5]
GOLDEN = {"out": [-2, -0.5, 0, 0.5, 1.5], "dv": [0, 1, 1, 1, 0], "ds_scaled": -0.41311822, "init_step": 2.19393102}


def leaf(scale=0.5):
    return FakeQuantized(jnp.array([VALUES]), LearntStep(jnp.full((1, 1), scale), 3))


def test_golden_value_gradients_and_first_step():
    grads = jax.jit(jax.grad(lambda w: jnp.sum(sx.dense(w))))(leaf())
    np.testing.assert_array_equal(sx.dense(leaf())[0], GOLDEN["out"])
    np.testing.assert_array_equal(grads.weight[0], GOLDEN["dv"])
    np.testing.assert_allclose(grads.quantizer.scale, [[GOLDEN["ds_scaled"]]], rtol=1e-6)
    params, _ = quantize.lsq(3).init({"w": leaf().weight}, Evidence({"w": Layout((0,), (1,))}))
    np.testing.assert_allclose(params["w"].quantizer.scale, [[GOLDEN["init_step"]]], rtol=1e-6)


def test_a_negative_scale_is_its_size_and_its_gradient_turns():
    gradient = lambda scale: jax.grad(lambda w: jnp.sum(sx.dense(w)))(leaf(scale)).quantizer.scale  # noqa: E731
    np.testing.assert_array_equal(sx.dense(leaf(-0.5)), sx.dense(leaf()))
    np.testing.assert_array_equal(gradient(-0.5), -gradient(0.5))


def oracle(w, s, bits, features):
    """(value, d/dw, d/ds entry by entry), float64."""
    low, high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    out, dw, ds = np.zeros_like(w), np.zeros_like(w), np.zeros_like(w)
    for i, v in np.ndenumerate(w):
        r = v / np.broadcast_to(s, w.shape)[i]
        code = min(max(np.round(r), low), high)
        out[i], dw[i] = code * np.broadcast_to(s, w.shape)[i], float(low < r < high)
        ds[i] = (low if r <= low else high if r >= high else np.round(r) - r) / np.sqrt(features * high)
    return out, dw, ds


@pytest.mark.parametrize(("channel", "features", "shape"), [(False, 9 * 160, (1, 1, 1, 1)), (True, 72, (1, 1, 1, 20))])
def test_gradients_of_a_convolution_kernel(channel, features, shape):
    given = plugs.evidence({"conv": plugs.draw()["conv"]})
    params, _ = quantize.lsq(3, channel=channel).init(dict(given.originals), given)
    weight, step = np.asarray(given.originals["conv"], np.float64), params["conv"].quantizer.scale
    assert step.shape == shape
    axes = (0, 1, 2) if channel else (0, 1, 2, 3)
    np.testing.assert_allclose(step, 2 * np.abs(weight).mean(axes, keepdims=True) / np.sqrt(3), rtol=1e-5)
    out, dw, ds = oracle(weight, np.asarray(step, np.float64), 3, features)
    upstream = np.random.default_rng(3).normal(size=weight.shape)
    value, grads = jax.jit(jax.value_and_grad(lambda w: jnp.sum(sx.dense(w) * upstream)))(params["conv"])
    np.testing.assert_allclose(value, np.sum(out * upstream), rtol=1e-4)
    np.testing.assert_allclose(grads.weight, dw * upstream, rtol=1e-5)
    np.testing.assert_allclose(grads.quantizer.scale, np.sum(ds * upstream, axes, keepdims=True), rtol=1e-3, atol=1e-4)


def test_the_gradient_of_the_step_is_the_slope_where_every_entry_is_clipped():
    total = lambda s: jnp.sum(sx.dense(FakeQuantized(jnp.array([[-9.0, 8, 7]]), LearntStep(s, 3))))  # noqa: E731
    slope = (total(jnp.array([[0.75]])) - total(jnp.array([[0.25]]))) / 0.5
    np.testing.assert_allclose(jax.grad(total)(jnp.array([[0.5]]))[0, 0] * np.sqrt(3 * 3), slope, rtol=1e-6)


def test_steps_of_a_stack_belong_to_its_layers():
    given = plugs.evidence({"stack": plugs.draw()["stack"]})
    params, _ = quantize.lsq(4).init(dict(given.originals), given)
    whole = params["stack"]
    assert whole.quantizer.scale.shape == (2, 1, 1)
    grads = jax.jit(jax.grad(lambda w: jnp.sum(sx.dense(w))))(whole)
    for layer in range(2):
        part = jax.tree.map(lambda x, layer=layer: x[layer], whole)
        np.testing.assert_array_equal(sx.dense(part), sx.dense(whole)[layer])
        own = jax.grad(lambda w: jnp.sum(sx.dense(w)))(part)
        np.testing.assert_allclose(own.quantizer.scale, grads.quantizer.scale[layer], rtol=1e-4)


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_pack_keeps_the_codes_alone(bits):
    given = plugs.evidence({"dense": plugs.draw()["dense"]})
    params, _ = quantize.lsq(bits, channel=True).init(dict(given.originals), given)
    small = sx.pack(params["dense"])
    assert isinstance(small, sx.Quantized)
    np.testing.assert_array_equal(sx.dense(small), sx.dense(params["dense"]))
    assert sx.nbytes(small) == 24 * 20 * bits // 8 + 20 * 4


def test_first_steps_of_activations_by_hand_and_never_again():
    """Signs are told by `E x = E|x|`: the hidden layer is behind a ReLU, the images are not."""
    params, (x, _) = {p: plugs.draw()[p] for p in ("conv", "outputs_first")}, plugs.batch()
    rest = {p: w for p, w in plugs.draw().items() if p not in params}
    transform = quantize.lsq(8, activations=4)
    apply = lambda params, x: plugs.network({**rest, **params}, x)  # noqa: E731
    out = sx.compress(apply, params, transform, batches=[x])
    own = {p: out.params[p].quantizer for p in params}
    assert {p: bool(q.unsigned) for p, q in own.items()} == {"conv": False, "outputs_first": True}
    size = np.mean(np.abs(np.asarray(plugs.statistics()["magnitudes"]["conv"])))
    np.testing.assert_allclose(own["conv"].scale, 2 * size / np.sqrt(7), rtol=1e-5)
    size = np.mean(np.asarray(plugs.statistics()["magnitudes"]["outputs_first"]))
    np.testing.assert_allclose(own["outputs_first"].scale, 2 * size / np.sqrt(15), rtol=1e-5)
    moved = plugs.evidence(params)._replace(magnitudes={p: 9 + plugs.statistics()["magnitudes"][p] for p in params})
    again, _, _ = transform.update(out.params, (), moved)
    jax.tree.map(np.testing.assert_array_equal, again, out.params)


def test_activations_are_rounded_where_they_meet_the_weight():
    x = jnp.array([[-1.0, 0.26, 0.7, 9.0]])
    for unsigned, rounded in ((True, [[0, 0.3, 0.7, 1.5]]), (False, [[-0.8, 0.3, 0.7, 0.7]])):
        inputs = FakeInputs(jnp.eye(4), LearntStep(jnp.float32(0.1), 4, jnp.array(unsigned)))
        np.testing.assert_allclose(sx.matmul(inputs, x), rounded, rtol=1e-6)
        np.testing.assert_array_equal(sx.dense(inputs), np.eye(4))
    blank = FakeInputs(jnp.eye(4), LearntStep(jnp.float32(0), 4, jnp.array(True)))
    np.testing.assert_array_equal(sx.matmul(blank, x), x)
    # four features of one example, sqrt(4 * 15): the outlier has slope 15, the rest what rounding left
    one = lambda s: jnp.sum(sx.matmul(FakeInputs(jnp.eye(4), LearntStep(s, 4, jnp.array(True))), x))  # noqa: E731
    np.testing.assert_allclose(jax.grad(one)(jnp.float32(0.1)), (15 + 3 - 2.6) / np.sqrt(60), rtol=1e-5)


def test_a_stack_of_layers_has_one_step_each():
    x, w = jnp.arange(6.0).reshape(2, 3) / 2, jnp.stack([jnp.eye(3), 2 * jnp.eye(3)])
    inputs = FakeInputs(w, LearntStep(jnp.array([1.0, 0.2]), 8, jnp.array([True, True])))
    apart = sx.compressed(lambda w, x: jnp.stack([x @ w[0], x @ w[1]], 1))
    together = sx.compressed(lambda w, x: jnp.einsum("lio,lbi->blo", w, x))
    expected = np.stack([np.round(x), np.round(np.asarray(x) * 5) / 5 * 2], 1)
    np.testing.assert_allclose(apart(inputs, x), expected, rtol=1e-6)
    np.testing.assert_allclose(together(inputs, jnp.stack([x, x])), expected, rtol=1e-6)


def test_pact_by_formula():
    x = jnp.array([[-1.0, 0.0, 0.3, 1.4, 1.5, 9.0]])
    clip = lambda alpha: FakeInputs(jnp.eye(6), LearntClip(alpha, 2))  # noqa: E731
    np.testing.assert_allclose(sx.matmul(clip(jnp.float32(1.5)), x), [[0, 0, 0.5, 1.5, 1.5, 1.5]], rtol=1e-6)
    dalpha, dx = jax.grad(lambda a, x: jnp.sum(sx.matmul(clip(a), x)), argnums=(0, 1))(jnp.float32(1.5), x)
    np.testing.assert_array_equal(dalpha, 2)  # 1.5 and 9
    np.testing.assert_array_equal(dx, [[0, 0, 1, 1, 0, 0]])


def test_lsq_of_weights_and_pact_of_activations():
    params, (x, _) = {"conv": plugs.draw()["conv"]}, plugs.batch()
    rest = {p: w for p, w in plugs.draw().items() if p != "conv"}
    apply = lambda params, x: plugs.network({**rest, **params}, x)  # noqa: E731
    out = sx.compress(apply, params, quantize.lsq(4), quantize.pact(4, alpha=2.0), batches=[x])
    clipped = jnp.round(jnp.clip(x, 0, 2) * 7.5) / 7.5
    expected = plugs.network({**rest, "conv": sx.dense(out.params["conv"])}, clipped)
    np.testing.assert_allclose(out.apply(out.params, x), expected, rtol=1e-4, atol=1e-4)
    assert out.info["conv"]["steps"][1]["alpha"] == 2.0
    packed = sx.pack(out.params)
    assert isinstance(packed["conv"].weight, sx.Quantized)
    np.testing.assert_allclose(out.apply(packed, x), expected, rtol=1e-4, atol=1e-4)


def test_masked_weights_are_rounded_under_their_mask():
    weight = plugs.draw()["dense"]
    masked = {"dense": sx.Masked(weight, weight > 0)}
    given = plugs.evidence({"dense": weight})
    params, _ = plugs.run(quantize.lsq(4), masked, given)
    assert isinstance(params["dense"].weight, FakeQuantized)
    np.testing.assert_array_equal(sx.dense(params["dense"]), jnp.where(weight > 0, sx.dense(params["dense"].weight), 0))
    np.testing.assert_array_equal(sx.dense(sx.pack(params["dense"])), sx.dense(params["dense"]))


def test_bad_arguments():
    for make in (lambda: quantize.lsq(1), lambda: quantize.lsq(4, activations=9), lambda: quantize.pact(0)):
        with pytest.raises(ValueError, match="must be one of"):
            make()
    for alpha in (0.0, float("inf")):
        with pytest.raises(ValueError, match="alpha must be positive"):
            quantize.pact(4, alpha=alpha)
    given = plugs.evidence({"dense": plugs.draw()["dense"]})
    twice, _ = quantize.lsq(4).init(dict(given.originals), given)
    with pytest.raises(ValueError, match="dense: this weight is quantized in training already"):
        quantize.lsq(4).init(twice, given)
    with pytest.raises(ValueError, match="dense holds no LearntStep"):
        quantize.lsq(4).update(dict(given.originals), (), given)


def heavy_tailed(shape, removed):
    """Laplace weights, and a mask that keeps the largest or, if `removed` is None, half of them at random."""
    rng = np.random.default_rng(0)
    w, drawn = rng.laplace(size=shape), rng.random(shape)
    mask = drawn < 0.5 if removed is None else np.abs(w) > np.quantile(np.abs(w), removed)
    return jnp.asarray(w, jnp.float32), jnp.asarray(mask)


@pytest.mark.parametrize(("bits", "removed", "cut"), [(2, 0.9, 2), (2, None, 1), (4, 0.9, 2), (8, 0.9, 8)])
def test_no_first_step_under_a_mask_rounds_what_it_keeps_to_zero(bits, removed, cut):
    """Kept entries are all large or of all sizes: the best step is another part of `2 E|w| / sqrt(most)`."""
    w, mask = heavy_tailed((64, 64), removed)
    most, kept = 2 ** (bits - 1) - 1, np.asarray(w)[np.asarray(mask)].astype(np.float64)
    first = 2 * np.abs(kept).mean() / np.sqrt(most)
    given = Evidence({"w": Layout((0,), (1,))})
    single, _ = plugs.run(quantize.lsq(bits), {"w": sx.Masked(w, mask)}, given)
    again, info = plugs.run(quantize.double_rounding((bits,)), {"w": sx.Masked(w, mask)}, given)
    np.testing.assert_allclose(single["w"].weight.quantizer.scale, [[first / cut]], rtol=1e-5)
    np.testing.assert_allclose(again["w"].weight.quantizer.scale, [[first / cut / 2 ** (8 - bits)]], rtol=1e-5)
    lost = lambda s: np.linalg.norm(np.clip(np.round(kept / s), -most - 1, most) * s - kept)  # noqa: E731
    assert min((1, 2, 4, 8), key=lambda part: lost(first / part)) == cut
    np.testing.assert_allclose(info["w"]["relative_errors"][-1], lost(first / cut) / np.linalg.norm(kept), rtol=0.02)


def test_the_first_step_of_several_widths_is_short_only_if_the_wide_ones_do_not_pay_for_it():
    """Half the step of two bits is half the range of eight: right for large entries, not for those of all sizes."""
    rng = np.random.default_rng(0)
    w, drawn = jnp.asarray(rng.normal(size=(64, 64)), jnp.float32), jnp.asarray(rng.random((64, 64)) < 0.5)
    given = Evidence({"w": Layout((0,), (1,))})
    for mask, cut, alone in ((jnp.abs(w) > 1.6, 2, 2), (drawn, 1, 2)):
        first = 2 * float(jnp.mean(jnp.abs(w), where=mask)) / 64
        for widths, part in (((8, 4, 2), cut), ((2,), alone)):
            params, info = plugs.run(quantize.double_rounding(widths), {"w": sx.Masked(w, mask)}, given)
            np.testing.assert_allclose(params["w"].weight.quantizer.scale, [[first / part]], rtol=1e-5)
        assert info["w"]["relative_errors"][0] < 0.45
        wide = plugs.run(quantize.double_rounding((8, 4, 2)), {"w": sx.Masked(w, mask)}, given)[1]
        assert wide["w"]["relative_errors"][0] < 0.02


METHODS = {"lsq": quantize.lsq(2), "double_rounding": quantize.double_rounding((8, 2)), "qfx": quantize.qfx(4)}


@pytest.mark.parametrize("name", METHODS)
def test_steps_and_errors_under_a_mask_are_those_of_the_kept_entries(name):
    """Of 10 % large entries: steps for the mean size, or the largest, of all would be far from theirs."""
    rng = np.random.default_rng(0)
    w = jnp.asarray(rng.normal(size=(32, 64)), jnp.float32)
    mask = jnp.abs(w) >= jnp.sort(jnp.abs(w).reshape(-1))[-205]
    mask = mask & (jnp.abs(w) < 3) | (jnp.abs(w) < 0.001)  # what is removed is larger too
    given = Evidence({"w": Layout((0,), (1,))})
    params, info = plugs.run(METHODS[name], {"w": sx.Masked(w, mask)}, given)
    column = w[mask][:, None]
    alone, _ = plugs.run(METHODS[name], {"w": sx.Masked(column, jnp.ones(column.shape, bool))}, given)
    arrays = zip(*(jax.tree.leaves(tree["w"].weight.quantizer) for tree in (params, alone)), strict=True)
    for ours, expected in arrays:
        np.testing.assert_allclose(ours, expected, rtol=1e-5)
    kept = jnp.where(mask, w, 0)
    true = jnp.linalg.norm(sx.dense(params["w"]) - kept) / jnp.linalg.norm(kept)
    told = info["w"]["relative_errors"][0] if name == "double_rounding" else info["w"]["relative_error"]
    np.testing.assert_allclose(told, true, rtol=1e-4)
