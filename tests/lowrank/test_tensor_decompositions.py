"""Tucker, spatial, CP and block-diagonal decompositions, and the ranks that VBMF finds."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import spartax as sx
from spartax import lowrank
from spartax.lowrank.ranks import vbmf
from spartax.records import Evidence, Layout
from tests.oracles import golden

rng = np.random.default_rng(1)
HWIO, OIHW = Layout((0, 1, 2), (3,)), Layout((2, 3, 1), (0,))
KERNEL = rng.normal(size=(3, 3, 8, 6)).astype(np.float32)
build = jax.jit(lambda make, w, layout, ranks: make.build(w, layout, dict(ranks), {}), static_argnums=(0, 2, 3))


def relative(leaf, kernel):
    return np.linalg.norm(np.asarray(sx.dense(leaf)) - kernel) / np.linalg.norm(kernel)


def tucker_error(kernel, u, v):
    """Error of the best core for given bases."""
    core = np.einsum("hwio,ip,oq->hwpq", kernel, u, v)
    return np.linalg.norm(kernel - np.einsum("hwpq,ip,oq->hwio", core, u, v)) / np.linalg.norm(kernel)


def test_iterations_of_tucker_end_below_the_truncated_svds():
    leaf = build(lowrank.tucker(20), KERNEL, HWIO, (("inputs", 3), ("outputs", 2)))
    u = np.linalg.svd(KERNEL.transpose(2, 0, 1, 3).reshape(8, -1))[0][:, :3]
    v = np.linalg.svd(KERNEL.transpose(3, 0, 1, 2).reshape(6, -1))[0][:, :2]
    assert relative(leaf, KERNEL) < tucker_error(KERNEL, u, v) - 1e-3
    assert (leaf.first.shape, leaf.core.shape, leaf.last.shape) == ((8, 3), (3, 3, 3, 2), (2, 6))
    np.testing.assert_allclose(np.asarray(leaf.first).T @ leaf.first, np.eye(3), atol=1e-5)


def test_a_kernel_of_low_multilinear_rank_is_found_exactly():
    low = np.einsum("hwpq,ip,oq->hwio", rng.normal(size=(3, 3, 2, 3)), rng.normal(size=(8, 2)), rng.normal(size=(6, 3)))
    assert relative(build(lowrank.tucker(), low.astype(np.float32), HWIO, (("inputs", 2), ("outputs", 3))), low) < 1e-5


def test_kernels_stored_outputs_first_give_the_same_factors():
    for make, ranks in ((lowrank.tucker(), (("inputs", 3), ("outputs", 2))), (lowrank.spatial(), (("", 4),))):
        ours = sx.dense(build(make, KERNEL, HWIO, ranks))
        turned = build(make, KERNEL.transpose(3, 2, 0, 1), OIHW, ranks)
        np.testing.assert_allclose(sx.dense(turned), np.asarray(ours).transpose(3, 2, 0, 1), atol=1e-4)


def test_spatial_decomposition_is_the_svd_of_vertical_by_horizontal():
    matrix = KERNEL.transpose(0, 2, 1, 3).reshape(24, 18)
    values = np.linalg.svd(matrix, compute_uv=False)
    expected = np.sqrt(np.sum(values[5:] ** 2) / np.sum(values**2))
    np.testing.assert_allclose(
        relative(build(lowrank.spatial(), KERNEL, HWIO, (("", 5),)), KERNEL), expected, rtol=1e-4
    )


def test_cp_finds_a_kernel_made_of_two_rank_one_tensors():
    parts = [rng.normal(size=(n, 2)) for n in KERNEL.shape]
    low = np.einsum("ar,br,cr,dr->abcd", *parts).astype(np.float32)
    assert relative(build(lowrank.cp(300, 1e-6), low, HWIO, (("", 2),)), low) < 0.02
    assert relative(build(lowrank.cp(), KERNEL, HWIO, (("", 6),)), KERNEL) < 0.95


def test_cp_that_has_not_settled_is_said_in_info_and_factors_that_are_not_finite_are_refused():
    parts = [rng.normal(size=(n, 2)) for n in KERNEL.shape]
    low = jnp.asarray(np.einsum("ar,br,cr,dr->abcd", *parts), jnp.float32)
    given = Evidence({"kernel": HWIO}, originals={"kernel": low})

    def done(factorization, method=lowrank.factorize, weight=low):
        transform = method(factorization, lowrank.fixed(2))
        return transform.update(*transform.init({"kernel": weight}, given), given)[2]["kernel"]

    early, late = done(lowrank.otherwise(lowrank.cp(1), lowrank.svd())), done(lowrank.cp(300, 1e-6))
    removed = sx.Masked(low, jnp.zeros(low.shape, bool))  # all of it is what compensation factorizes
    assert done(lowrank.cp(1), lowrank.compensate, removed)["warning"] == early["warning"]
    assert "warning" not in late
    assert late["relative_error"] < 0.02
    one, two = (sx.dense(build(lowrank.cp(rounds), low, HWIO, (("", 2),))) for rounds in (1, 2))
    moved = float(jnp.linalg.norm(two - one) / jnp.linalg.norm(low))
    assert f"moves the weight by {100 * moved:.2g} % of its norm" in early["warning"]
    alone = lowrank.factorize(lowrank.cp(ridge=0.0), lowrank.fixed(2))  # rank one twice: equations without a solution
    ones = jnp.ones_like(low)
    with pytest.raises(ValueError, match="kernel: its factors hold NaN or infinite values"):
        alone.init({"kernel": ones}, given)


def test_block_diagonal_and_low_rank_together_beat_each_alone():
    blocks = np.kron(np.eye(2), np.ones((4, 3))) * rng.normal(size=(8, 6))
    matrix = (blocks + rng.normal(size=(8, 1)) @ rng.normal(size=(1, 6))).astype(np.float32)
    leaf = build(lowrank.block_diagonal(2, 60), matrix, Layout((0,), (1,)), (("", 1),))
    assert relative(leaf, matrix) < 0.02
    first = build(lowrank.block_diagonal(2, 1), matrix, Layout((0,), (1,)), (("", 1),))
    assert relative(first, matrix) > relative(leaf, matrix) + 0.01
    assert isinstance(leaf.terms[0], sx.BlockDiagonal)


def test_what_does_not_fit_stays_dense_and_info_says_so():
    weights = {"point": jnp.ones((1, 1, 8, 6)), "dense": jnp.ones((8, 6))}
    layouts = {"point": HWIO, "dense": Layout((0,), (1,)), "kernel": HWIO}
    transform = lowrank.factorize(lowrank.tucker(), lowrank.fixed(2))
    params, state = transform.init({**weights, "kernel": jnp.asarray(KERNEL)}, Evidence(layouts))
    info = transform.update(params, state, Evidence(layouts))[2]
    assert isinstance(params["kernel"], sx.Tucker)
    for path, weight in weights.items():
        assert params[path] is weight
        assert "not a kind of weight" in info[path]["skipped"]


def test_tucker_of_a_grouped_convolution():
    """Groups that are mixtures of the same two inputs and three small kernels are found exactly, and stay factors."""
    shapes = (3, 3, 2, 3), (8, 2), (12, 3)
    low = np.einsum("hwpq,ip,oq->hwio", *(rng.normal(size=shape) for shape in shapes)).astype(np.float32)

    def network(kernel, x):
        numbers = ("NHWC", "HWIO", "NHWC")
        return jax.lax.conv_general_dilated(x, kernel, (2, 1), "SAME", dimension_numbers=numbers, feature_group_count=2)

    x = jnp.asarray(rng.normal(size=(2, 6, 6, 16)), jnp.float32)
    method = lowrank.factorize(lowrank.tucker(), lowrank.energy(0.9999))
    out = sx.compress(network, jnp.asarray(low), method, batches=[x])
    assert out.info[""]["steps"][0]["rank"] == {"inputs": 2, "outputs": 3}
    expected = network(jnp.asarray(low), x)
    np.testing.assert_allclose(out.apply(out.params, x), expected, atol=1e-4 * np.abs(expected).max())


def test_golden_rank_and_noise_of_vbmf():
    i, j = np.arange(24)[:, None], np.arange(60)[None]
    signal = sum(np.sin(0.3 * (t + 1) * i + t) * np.cos(0.17 * (t + 2) * j) for t in range(4))
    noisy = signal + 0.02 * np.sin(12.9898 * i * j + 78.233 * j)
    variance, rank = vbmf.noise_and_rank(np.linalg.svd(noisy, compute_uv=False), noisy.shape)
    assert rank == golden.NUMBERS["evbmf_rank4_signal"][0]
    np.testing.assert_allclose(variance, golden.NUMBERS["evbmf_rank4_signal"][1], rtol=1e-3)
    assert lowrank.vbmf()({"w": jnp.asarray(noisy.T, jnp.float32)}, Evidence({})) == {"w": 4}


def test_vbmf_gives_pure_noise_the_least_rank():
    assert lowrank.vbmf()({"w": jnp.asarray(rng.normal(size=(40, 60)))}, Evidence({})) == {"w": 1}


def test_tucker_with_vbmf_and_energy_through_compress():
    low = np.einsum(
        "hwpq,ip,oq->hwio", rng.normal(size=(3, 3, 2, 3)), rng.normal(size=(16, 2)), rng.normal(size=(16, 3))
    )
    kernel = jnp.asarray(low + 0.02 * rng.normal(size=low.shape), jnp.float32)

    def network(w, x):
        return jax.lax.conv_general_dilated(x, w, (2, 2), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))

    x = jnp.asarray(rng.normal(size=(2, 6, 6, 16)), jnp.float32)
    for ranks in (lowrank.vbmf(), lowrank.energy(0.995)):
        out = sx.compress(network, kernel, lowrank.factorize(lowrank.tucker(), ranks), batches=[x])
        assert out.info[""]["steps"][0]["rank"] == {"inputs": 2, "outputs": 3}
        expected = network(sx.dense(out.params), x)
        np.testing.assert_allclose(out.apply(out.params, x), expected, atol=1e-3)
    with pytest.raises(ValueError, match="a byte budget prices one matrix a weight"):
        sx.compress(network, kernel, lowrank.factorize(lowrank.tucker(), lowrank.byte_budget()), batches=[x])


def test_mac_budget_cuts_the_layer_with_the_large_image():
    """Equal kernels, one used on 16 times the places: a budget of multiply-adds takes the ranks of that one."""
    w = rng.normal(size=(1, 1, 16, 16))
    params = {"large": jnp.asarray(w, jnp.float32), "small": jnp.asarray(w, jnp.float32)}

    def network(p, x):
        numbers = ("NHWC", "HWIO", "NHWC")
        x = jax.lax.conv_general_dilated(x, p["large"], (1, 1), "VALID", dimension_numbers=numbers)
        return jax.lax.conv_general_dilated(x, p["small"], (4, 4), "VALID", dimension_numbers=numbers)

    x = jax.ShapeDtypeStruct((1, 8, 8, 16), jnp.float32)
    out = sx.compress(network, params, lowrank.factorize(lowrank.svd(), lowrank.mac_budget(0.5)), batches=[x])
    now = sum(u.macs_now for u in sx.inspect(network, out.params, x).values())
    before = sum(u.macs for u in sx.inspect(network, params, x).values())
    assert 0.4 * before < now <= 0.5 * before
    assert not isinstance(out.params["small"], sx.LowRank)
    assert out.params["large"].rank == 3  # (0.5 * 68 - 4) * 256 / 32 / 64, rounded down
