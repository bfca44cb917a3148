"""Double Rounding: goldens, all codes at all widths, one copy of int8 that is switched without a trace, its bytes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import spartax as sx
from spartax import checkpoint, quantize
from spartax.arrays import DoubleRounded, FakeQuantized, SwitchedStep
from spartax.records import Evidence, Layout
from tests import plugs

GOLDEN = {
    8: [127, 107, -86, -46, 2, 99, 103, -105, -55, 59],
    6: [31, 27, -22, -12, 0, 25, 26, -26, -14, 15],
    4: [7, 7, -5, -3, 0, 6, 6, -7, -3, 4],
    2: [1, 1, -1, -1, 0, 1, 1, -2, -1, 1],
}

GIVEN = Evidence({"dense": plugs.LAYOUTS["dense"]})


def stored(codes, bits, scale=1.0):
    codes = jnp.asarray(codes, jnp.int8)
    single = (1,) * codes.ndim
    return DoubleRounded(codes, jnp.full(single, scale), jnp.full(single, bits, jnp.int8))


def oracle(codes, bits):
    """Integers of the second rounding, in Python: nearest, halves to even, saturating."""
    out = []
    for code in np.ravel(codes).tolist():
        whole, rest = divmod(code, 2 ** (8 - bits))
        up = 2 * rest > 2 ** (8 - bits) or (2 * rest == 2 ** (8 - bits) and whole % 2)
        out.append(min(max(whole + up, -(2 ** (bits - 1))), 2 ** (bits - 1) - 1))
    return np.reshape(out, np.shape(codes))


def test_golden_integers_of_every_width_from_those_of_eight_bits():
    store = stored([GOLDEN[8]], 8)
    for bits, expected in GOLDEN.items():
        cut = quantize.switch(store, bits).cut
        np.testing.assert_array_equal(cut.codes[0], expected)
        assert float(cut.scale[0, 0]) == 2 ** (8 - bits)


def test_all_codes_at_all_widths_inside_one_compiled_function():
    store, traces = stored(np.arange(-128, 128).reshape(16, 16), 8, 0.25), []

    @jax.jit
    def read(store, bits):
        traces.append(1)
        switched = quantize.switch({"w": store}, bits)["w"]
        return sx.dense(switched), switched.codes

    for bits in range(2, 9):
        values, codes = read(store, jnp.int32(bits))
        np.testing.assert_array_equal(values, oracle(store.codes, bits) * 0.25 * 2 ** (8 - bits))
        np.testing.assert_array_equal(values, sx.dense(quantize.switch(store, bits)))
        np.testing.assert_array_equal(codes, store.codes)
    np.testing.assert_array_equal(read(store, jnp.int32(8))[0], np.asarray(store.codes) * 0.25)
    assert len(traces) == 1


def test_a_network_is_switched_without_a_trace_and_answers_as_its_dense_weights():
    draw, (x, _) = plugs.draw(), plugs.batch()
    paths, traces, answers = ("conv", "dense"), [], []
    out = sx.compress(plugs.network, draw, quantize.double_rounding(), batches=[x[:8]], rule=lambda p, _: p in paths)
    store = sx.pack(out.params)

    @jax.jit
    def answer(store):
        traces.append(1)
        return out.apply(store, x[:8])

    for bits in ({"conv": 8, "dense": 2}, {"conv": 4, "dense": 6}):
        switched = quantize.switch(store, bits)
        answers.append(answer(switched))
        dense = {p: oracle(w.codes, bits[p]) * w.scale * 2.0 ** (8 - bits[p]) for p, w in store.items() if p in paths}
        np.testing.assert_allclose(answers[-1], plugs.network({**draw, **dense}, x[:8]), rtol=1e-4, atol=1e-4)
        for path in paths:
            assert switched[path].codes is store[path].codes
    assert len(traces) == 1
    assert np.abs(answers[0] - answers[1]).max() > 0.01
    # 24 x 20 bytes of codes, a step of four bytes and one byte that says the width, whatever the width
    assert {sx.nbytes(sx.pack(quantize.switch(store, bits)["dense"])) for bits in (8, 4, 2)} == {24 * 20 + 4 + 1}


@pytest.mark.parametrize("bits", [8, 4, 2])
def test_training_reads_what_is_stored_and_its_derivatives_are_those_of_the_formula(bits):
    rng = np.random.default_rng(0)
    w = np.concatenate([rng.normal(size=37), [9.0, -9.0, 0.0]]).reshape(8, 5).astype(np.float32)
    upstream, s, growth = rng.normal(size=w.shape), 0.03125, 2 ** (8 - bits)
    leaf = FakeQuantized(jnp.asarray(w), SwitchedStep(jnp.full((1, 1), s), jnp.full((1, 1), bits, jnp.int8)))
    loss = lambda leaf: jnp.sum(upstream * sx.dense(leaf))  # noqa: E731
    value, grads = jax.jit(jax.value_and_grad(loss, allow_int=True))(leaf)
    ratio = w.astype(np.float64) / s
    codes = oracle(np.clip(np.round(ratio), -128, 127).astype(int), bits) * growth
    inside = (ratio > -128) & (ratio < 128 - growth)
    np.testing.assert_array_equal(sx.dense(sx.pack(leaf)), codes * s)
    np.testing.assert_array_equal(sx.dense(leaf), codes * s)
    np.testing.assert_allclose(value, np.sum(upstream * codes) * s, rtol=1e-5)
    np.testing.assert_allclose(grads.weight, upstream * inside, rtol=1e-6)
    slope = np.sum(upstream * np.where(inside, codes - ratio, codes)) / np.sqrt(w.size * (2 ** (bits - 1) - 1))
    np.testing.assert_allclose(grads.quantizer.scale, [[slope]], rtol=1e-4)
    within = np.abs(codes * s - w) <= s * growth / 2 + s / 2 + 1e-6
    assert within[inside].all()


def test_the_first_step_is_that_of_lsq_at_the_narrowest_width_and_layers_have_their_own():
    weight = jnp.stack([jnp.full((2, 3), 0.5), jnp.full((2, 3), -2.0)])
    given = Evidence({"w": Layout((1,), (2,), (0,))})
    for widths, first in (((8, 4), 2 / np.sqrt(7) / 16), ((6, 2), 2 / 64)):
        params, info = plugs.run(quantize.double_rounding(widths), {"w": weight}, given)
        step = params["w"].quantizer
        np.testing.assert_allclose(step.scale.reshape(-1), [0.5 * first, 2 * first], rtol=1e-6)
        np.testing.assert_array_equal(step.bits.reshape(-1), [widths[0]] * 2)
        assert (info["w"]["bits"], info["w"]["widths"]) == (widths[0], list(widths))
    np.testing.assert_allclose(info["w"]["relative_errors"], [0, 1], atol=1e-6)  # 32 / 4 = 8, 32 / 64 -> 0
    params, _ = quantize.double_rounding(channel=True).init({"w": weight}, given)
    assert params["w"].quantizer.scale.shape == (2, 1, 3)
    assert sx.nbytes(sx.pack(params["w"])) == 2 * 2 * 3 + 2 * 3 * 4 + 2


def test_under_a_mask_the_kept_codes_alone_are_stored_and_read_at_every_width(tmp_path):
    weight = plugs.draw()["dense"]
    mask = jnp.abs(weight) > jnp.quantile(jnp.abs(weight), 0.8)
    params, _ = plugs.run(quantize.double_rounding(), {"dense": sx.Masked(weight, mask)}, GIVEN)
    store = sx.pack(params)
    # a fifth of 24 x 20 bytes, a bit for each entry, a step of four bytes and one byte that says the width
    assert sx.nbytes(store) == 96 + 24 * 20 // 8 + 4 + 1
    checkpoint.save(tmp_path / "store", store)
    x, read = plugs.batch()[0].reshape(-1, 8)[:12, :].reshape(4, 24), jax.jit(sx.matmul)
    for tree in (store, checkpoint.restore(tmp_path / "store")):
        for bits in (8, 4, 2):
            cut, trained = (quantize.switch(p, bits)["dense"] for p in (tree, params))
            np.testing.assert_array_equal(sx.dense(cut), sx.dense(trained))
            np.testing.assert_allclose(read(cut, x), x @ sx.dense(trained), rtol=1e-4, atol=1e-4)


def test_a_store_and_a_network_in_training_are_saved(tmp_path):
    params, _ = plugs.run(quantize.double_rounding(), {"dense": plugs.draw()["dense"]}, GIVEN)
    for number, kept in enumerate((params, sx.pack(params))):
        checkpoint.save(tmp_path / str(number), kept)
        back = checkpoint.restore(tmp_path / str(number))
        assert jax.tree.structure(back) == jax.tree.structure(kept)
        for bits in (8, 2):
            ours, theirs = (sx.dense(quantize.switch(tree, bits)["dense"]) for tree in (kept, back))
            np.testing.assert_array_equal(theirs, ours)


def test_bad_arguments():
    params, _ = plugs.run(quantize.double_rounding(), {"dense": plugs.draw()["dense"]}, GIVEN)
    for widths in ((8, 1), (9,), (2.5,)):
        with pytest.raises(ValueError, match="widths must be one of"):
            quantize.double_rounding(widths)
    with pytest.raises(ValueError, match="number of widths"):
        quantize.double_rounding(())
    for bits in (1, 9, {"dense": 0}):
        with pytest.raises(ValueError, match="bits must be one of"):
            quantize.switch(params, bits)
    with pytest.raises(ValueError, match="params holds no weight of double_rounding"):
        quantize.switch({"dense": plugs.draw()["dense"]}, 4)
    with pytest.raises(ValueError, match="path must be one of"):
        quantize.switch(params, {"denes": 4})
    for twice in (params, sx.pack(params)):
        with pytest.raises(ValueError, match="dense: this weight is quantized"):
            quantize.double_rounding().init(twice, GIVEN)
    with pytest.raises(ValueError, match="dense holds no SwitchedStep"):
        quantize.double_rounding().update({"dense": plugs.draw()["dense"]}, (), GIVEN)
