"""Factorizations that look at the data: whitened, activation-weighted, atomic features, EoRA, randomized."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import spartax as sx
from spartax import lowrank, quantize
from tests.lowrank.splits import split
from tests.oracles import golden

W, X = golden.inputs()
MOMENTS = X @ X.T / X.shape[1]
rng = np.random.default_rng(0)


def wave(*shape, a=1.0, b=0.7):
    i = np.arange(np.prod(shape))
    return (np.sin(a + 1.3 * i) + 0.5 * np.cos(b * i**2)).reshape(shape)


def loss(matrix, left, right, moments):
    lost = matrix - np.asarray(left, np.float64) @ np.asarray(right, np.float64)
    return np.trace(lost.T @ moments @ lost)


def test_golden_errors_of_rank_three():
    whitened = split(lowrank.whitened(), W.T, 3, moments=MOMENTS)
    np.testing.assert_allclose(
        golden.output_error(whitened[0] @ whitened[1]), golden.NUMBERS["svdllm_rank3_err"], rtol=2e-4
    )
    weighted = split(lowrank.activation_weighted(), W.T, 3, magnitudes=np.abs(X).mean(1))
    np.testing.assert_allclose(
        golden.output_error(weighted[0] @ weighted[1]), golden.NUMBERS["asvd_rank3_err"], rtol=2e-4
    )


def test_the_loss_of_whitening_is_the_tail_of_the_whitened_spectrum():
    matrix = rng.normal(size=(12, 9))
    rows = rng.normal(size=(50, 12)) @ rng.normal(size=(12, 12))
    moments = rows.T @ rows / 50
    spectrum = np.linalg.svd(np.linalg.cholesky(moments).T @ matrix, compute_uv=False) ** 2
    for rank in (2, 5):
        left, right = split(lowrank.whitened(), matrix, rank, moments=moments)
        np.testing.assert_allclose(loss(matrix, left, right, moments), spectrum[rank:].sum(), rtol=2e-3)
        plain = split(lowrank.svd(), matrix, rank)
        assert loss(matrix, left, right, moments) < 0.9 * loss(matrix, *plain, moments)


def test_white_inputs_make_it_the_plain_svd_and_so_does_full_damping_of_nothing():
    matrix = rng.normal(size=(8, 6))
    expected = np.matmul(*split(lowrank.svd(), matrix, 3))
    for factorization, given in (
        (lowrank.whitened(), {"moments": 2.5 * np.eye(8)}),
        (lowrank.activation_weighted(), {"magnitudes": np.full(8, 0.3)}),
        (lowrank.activation_weighted(alpha=0), {"magnitudes": np.arange(8.0)}),
    ):
        np.testing.assert_allclose(np.matmul(*split(factorization, matrix, 3, **given)), expected, atol=1e-4)


def test_inputs_that_never_fire_and_too_few_samples():
    """Three samples of eight inputs, two of them dead: the outputs on the data are exact at rank 3."""
    rows = rng.normal(size=(3, 8))
    rows[:, [2, 5]] = 0
    matrix = rng.normal(size=(8, 6))
    left, right = split(lowrank.whitened(), matrix, 3, moments=rows.T @ rows / 3)
    assert np.isfinite(left).all()
    np.testing.assert_allclose(rows @ np.asarray(left) @ np.asarray(right), rows @ matrix, atol=2e-2)
    weighted = split(lowrank.activation_weighted(), matrix, 3, magnitudes=np.abs(rows).mean(0))
    assert all(np.isfinite(part).all() for part in weighted)


def test_moments_follow_the_axes_of_a_kernel_stored_outputs_first():
    """OIHW: inputs of the layout are (h, w, i), memory has (i, h, w)."""
    kernel = jnp.asarray(rng.normal(size=(3, 3, 4, 5)), jnp.float32)
    x = jnp.asarray(rng.normal(size=(6, 5, 5, 4)) * [5, 1, 0.2, 1], jnp.float32)

    def network(order):
        numbers = ("NHWC", order, "NHWC")
        return lambda w, x: jax.lax.conv_general_dilated(x, w, (1, 1), "SAME", dimension_numbers=numbers)

    method = lowrank.factorize(lowrank.whitened(), lowrank.fixed(2))
    plain = sx.compress(network("HWIO"), kernel, method, batches=[x])
    turned = sx.compress(network("OIHW"), kernel.transpose(3, 2, 0, 1), method, batches=[x])
    np.testing.assert_allclose(sx.dense(turned.params), sx.dense(plain.params).transpose(3, 2, 0, 1), atol=2e-3)


def test_atomic_features_with_the_bias_corrected_reach_the_golden_error():
    """The mean squared error of the outputs is the sum of the dropped eigenvalues of their covariance."""
    x, w, b = (jnp.asarray(v, jnp.float32) for v in (wave(40, 6, a=0.8), wave(5, 6, a=0.2), wave(5, a=3)))
    params = {"w": w, "b": b}
    apply = lambda p, x: x @ p["w"].T + p["b"]  # noqa: E731
    steps = lowrank.factorize(lowrank.atomic_features(), lowrank.fixed(2)), sx.correct_bias()
    out = sx.compress(apply, params, *steps, batches=[x[:25], x[25:]])
    error = np.sum((np.asarray(out.apply(out.params, x)) - np.asarray(apply(params, x))) ** 2, axis=1).mean()
    np.testing.assert_allclose(error, 0.249099539, rtol=1e-3)
    assert out.info["w"]["steps"][1]["bias"] == "b"
    plain = sx.compress(
        apply, params, lowrank.factorize(lowrank.svd(), lowrank.fixed(2)), sx.correct_bias(), batches=[x]
    )
    rest = np.sum((np.asarray(plain.apply(plain.params, x)) - np.asarray(apply(params, x))) ** 2, axis=1).mean()
    assert rest > 1.15 * error


def test_atomic_features_of_a_table_weigh_its_rows_by_how_often_they_are_looked_up():
    """The least error on the rows that are seen: of all affine maps to two directions, the principal components."""
    ids = jnp.asarray(rng.choice(12, 60, p=np.arange(1, 13) / 78), jnp.int32)
    params = {"table": jnp.asarray(rng.normal(size=(12, 6)), jnp.float32), "bias": jnp.zeros(6)}
    apply = lambda p, ids: p["table"][ids] + p["bias"]  # noqa: E731
    steps = lowrank.factorize(lowrank.atomic_features(), lowrank.fixed(2)), sx.correct_bias()
    out = sx.compress(apply, params, *steps, batches=[ids[:40], ids[40:]], rule=lambda path, w: True)
    assert out.params["table"].left.shape == (12, 2)
    seen = np.asarray(params["table"], np.float64)[np.asarray(ids)]
    tail = np.linalg.svd(seen - seen.mean(0), compute_uv=False)[2:]
    np.testing.assert_allclose(np.sum((np.asarray(out.apply(out.params, ids)) - seen) ** 2), np.sum(tail**2), rtol=1e-3)
    whitened = lowrank.factorize(lowrank.whitened(), lowrank.fixed(2))
    out = sx.compress(apply, params, whitened, batches=[ids], rule=lambda path, w: True)
    tail = np.linalg.svd(seen, compute_uv=False)[2:]
    np.testing.assert_allclose(np.sum((np.asarray(out.apply(out.params, ids)) - seen) ** 2), np.sum(tail**2), rtol=1e-3)


@pytest.mark.parametrize("biased", [False, True])
def test_atomic_features_keep_the_mean_where_nobody_gives_it_back(biased):
    """No transform corrects the bias, or there is none: the least error of two directions has the mean in."""
    x = jnp.asarray(rng.normal(size=(60, 12)) + 3, jnp.float32)
    params = {"w": jnp.asarray(rng.normal(size=(12, 8)), jnp.float32), "b": jnp.zeros(8)}
    apply = lambda p, x: x @ p["w"] + (p["b"] if biased else 0)  # noqa: E731
    steps = [lowrank.factorize(lowrank.atomic_features(), lowrank.fixed(2)), *([] if biased else [sx.correct_bias()])]
    out = sx.compress(apply, params, *steps, batches=[x])
    outputs = np.asarray(x @ params["w"], np.float64)
    centred = lowrank.factorize(lowrank.atomic_features(centred=True), lowrank.fixed(2))
    out_centred = sx.compress(apply, params, centred, batches=[x])
    spread = np.linalg.svd(outputs - outputs.mean(0), compute_uv=False)[2:]
    moved = np.asarray(out_centred.apply(out_centred.params, x)) - outputs
    np.testing.assert_allclose(np.sum((moved - moved.mean(0)) ** 2), np.sum(spread**2), rtol=1e-3)
    tail = np.linalg.svd(outputs, compute_uv=False)[2:]
    np.testing.assert_allclose(
        np.sum((np.asarray(out.apply(out.params, x)) - outputs) ** 2), np.sum(tail**2), rtol=1e-3
    )


def test_golden_compensation_in_the_eigenspace():
    """EoRA of a rounded weight, rank 2: summed squared error 6.7079; by the plain SVD 15.85; with none 37.71."""
    x, w = wave(40, 6, a=0.8), wave(5, 6, a=0.2)
    lost = (w - np.round(w)).T
    left, right = split(lowrank.whitened(), lost, 2, moments=x.T @ x / 40)
    np.testing.assert_allclose(40 * loss(lost, left, right, x.T @ x / 40), 6.7078720459, rtol=1e-3)
    plain = split(lowrank.svd(), lost, 2)
    np.testing.assert_allclose(40 * loss(lost, *plain, x.T @ x / 40), 15.8533687592, rtol=1e-3)


def test_eora_on_three_bit_codes_reaches_the_golden_error_and_its_factors_may_be_quantized():
    weight, x = jnp.asarray(W.T, jnp.float32), jnp.asarray(X.T, jnp.float32)
    apply = lambda w, x: x @ w  # noqa: E731
    codes = quantize.quantize(quantize.integer(3, symmetric=False))
    eora = lowrank.compensate(lowrank.whitened(), lowrank.fixed(2))
    out = sx.compress(apply, weight, codes, eora, batches=[x])
    np.testing.assert_allclose(golden.output_error(sx.dense(out.params)), golden.NUMBERS["eora_rank2_err"], rtol=0.02)
    small = lowrank.compensate(lowrank.whitened(), lowrank.fixed(2), quantize.quantize(quantize.integer(8)))
    again = sx.compress(apply, weight, codes, small, batches=[x]).params
    assert isinstance(again.terms[1].left, sx.Quantized)
    near = golden.output_error(sx.dense(again))
    assert golden.NUMBERS["eora_rank2_err"] < near < 1.3 * golden.NUMBERS["eora_rank2_err"]


def test_randomized_svd_is_nearly_as_near_and_power_iterations_help():
    values = 0.9 ** np.arange(60)
    u, v = (np.linalg.qr(rng.normal(size=(n, 60)))[0] for n in (90, 70))
    matrix = u * values @ v.T
    best = np.sqrt(np.sum(values[10:] ** 2))
    errors = [
        np.linalg.norm(matrix - np.matmul(*split(lowrank.randomized_svd(4, power), matrix, 10, key=jax.random.key(0))))
        for power in (0, 2)
    ]
    assert best * 1.0001 < errors[1] < best * 1.005
    assert errors[0] > best * 1.1


def test_the_gram_matrix_gives_the_svd_of_either_side():
    matrix = rng.normal(size=(12, 30)) * np.geomspace(1, 0.01, 12)[:, None]
    for turned in (matrix, matrix.T):
        ours, exact = (np.matmul(*split(make(), turned, 5)) for make in (lowrank.gram_svd, lowrank.svd))
        np.testing.assert_allclose(ours, exact, atol=2e-4)
    left, right = split(lowrank.gram_svd(), matrix, 5)
    values = np.linalg.svd(matrix, compute_uv=False)[:5]
    np.testing.assert_allclose(np.sum(np.square(left), axis=0), values, rtol=1e-3)  # shared evenly
    np.testing.assert_allclose(np.sum(np.square(right), axis=1), values, rtol=1e-3)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: lowrank.whitened(damping=-1), "damping must be in"),
        (lambda: lowrank.activation_weighted(alpha=2), "alpha must be in"),
        (lambda: lowrank.randomized_svd(oversample=-1), "oversample must be an integer"),
        (lambda: lowrank.block_diagonal(groups=1), "groups must be an integer of at least 2"),
        (lambda: lowrank.tucker(iterations=-1), "iterations must be an integer"),
        (lambda: lowrank.cp(ridge=-1.0), "ridge must be in"),
    ],
)
def test_bad_options(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_statistics_that_nobody_gave_are_named():
    method = lowrank.factorize(lowrank.whitened(), lowrank.fixed(2))
    with pytest.raises(ValueError, match="moments is needed"):
        sx.compress(lambda w, x: x @ w, jnp.ones((8, 8)), method, batches=[jax.ShapeDtypeStruct((4, 8), jnp.float32)])
