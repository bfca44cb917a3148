"""Ranks that training brings about: truncation while training (TRP), and ordered factors (Maestro)."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import spartax as sx
from spartax import lowrank
from spartax.lowrank import maestro
from spartax.lowrank.trained_rank import nuclear_norm, truncate
from spartax.records import Evidence, Layout
from tests import plugs

DENSE = Layout((0,), (1,))


def wave(*shape, a=1.0, b=0.7):
    i = np.arange(np.prod(shape))
    return (np.sin(a + 1.3 * i) + 0.5 * np.cos(b * i**2)).reshape(shape)


W = jnp.asarray(wave(8, 12, a=0.3), jnp.float32)
X = jnp.asarray(np.random.default_rng(7).normal(size=(400, 12)), jnp.float32)
Y = jnp.argmax(jnp.tanh(X[:, :2] @ jnp.array([[2.0, 1.0, -2.0], [0.5, -2.0, 1.0]])), axis=1)  # two directions of twelve


@sx.compressed
def perceptron(params, x):
    return jax.nn.relu(x @ params["hidden"]) @ params["last"]


def initialized():
    rng = np.random.default_rng(11)
    return {
        name: jnp.asarray(rng.normal(size=shape) / 4, jnp.float32)
        for name, shape in {"hidden": (12, 24), "last": (24, 3)}.items()
    }


def test_golden_truncation_and_nuclear_norm():
    near, rank = truncate(W, 0.9)
    assert int(rank) == 3
    np.testing.assert_allclose(np.linalg.norm(np.asarray(W - near)), 2.1006025826, rtol=1e-4)
    value, slope = jax.value_and_grad(lambda w: nuclear_norm({"w": w}, {"w": DENSE}, 0.9))(W)
    np.testing.assert_allclose(value, 10.6869941413, rtol=1e-5)
    np.testing.assert_allclose(jnp.sum(slope * W), 10.6869941413, rtol=1e-5)
    np.testing.assert_allclose(np.linalg.svd(slope, compute_uv=False), [1, 1, 1, *[0] * 5], atol=1e-5)


def test_the_weight_has_exactly_the_rank_that_is_reported():
    weights, given = plugs.draw(), plugs.evidence()
    params, info = plugs.run(lowrank.trained_rank(0.8), weights, given)
    for path, matrix in (("dense", params["dense"]), ("conv", params["conv"].reshape(72, 20))):
        values = np.linalg.svd(np.asarray(matrix), compute_uv=False)
        assert np.sum(values > 1e-5 * values[0]) == info[path]["rank"]
    layers = np.linalg.svd(np.asarray(params["stack"]), compute_uv=False)
    assert max(np.sum(v > 1e-5 * v[0]) for v in layers) == info["stack"]["rank"]
    whole, _ = plugs.run(lowrank.trained_rank(1.0), weights, given)
    for path, w in whole.items():
        np.testing.assert_allclose(w, weights[path], atol=1e-5)


def test_spatial_truncation_folds_back():
    kernel = {"conv": plugs.draw()["conv"]}
    params, info = plugs.run(lowrank.trained_rank(0.7, lowrank.spatial()), kernel, plugs.evidence(kernel))
    values = np.linalg.svd(np.asarray(params["conv"]).transpose(0, 2, 1, 3).reshape(24, 60), compute_uv=False)
    assert np.sum(values > 1e-5 * values[0]) == info["conv"]["rank"] < 24


def test_factors_after_training_are_free():
    """What was truncated last is factorized without loss."""
    params, info = plugs.run(
        lowrank.trained_rank(0.6), {"dense": plugs.draw()["dense"]}, plugs.evidence({"dense": plugs.draw()["dense"]})
    )
    given = Evidence({"dense": DENSE})
    thin, _ = plugs.run(lowrank.factorize(lowrank.svd(), lowrank.energy(0.9999)), params, given)
    assert thin["dense"].rank == info["dense"]["rank"]
    np.testing.assert_allclose(plugs.dense(thin["dense"]), params["dense"], atol=1e-4)


def test_bad_input():
    with pytest.raises(ValueError, match="kept must be in"):
        lowrank.trained_rank(1.5)
    with pytest.raises(ValueError, match="factorization must need no statistics here; it needs moments"):
        lowrank.trained_rank(0.9, lowrank.whitened())
    with pytest.raises(ValueError, match="w: trained_rank works on dense weights; got a LowRank"):
        lowrank.trained_rank().init({"w": sx.LowRank(jnp.ones((3, 1)), jnp.ones((1, 3)))}, Evidence({"w": DENSE}))
    for raises in (maestro.sampled, lambda key, params: maestro.objective(perceptron, params, key, X, Y)):
        with pytest.raises(ValueError, match=r"params must hold LowRank leaves, .*; they hold hidden, last"):
            raises(jax.random.key(0), initialized())
    with pytest.raises(ValueError, match="threshold must be in"):
        maestro.shrink({}, -1.0)


def factors():
    params, _ = plugs.run(maestro.decomposed(), {"w": W}, Evidence({"w": DENSE}))
    return params


def test_golden_penalty_and_importance_of_maestro():
    params = factors()
    np.testing.assert_allclose(maestro.group_lasso(params), 29.5613025903, rtol=1e-4)
    rows, columns = maestro.suffix_norms(params["w"])
    values = np.linalg.svd(np.asarray(W), compute_uv=False)
    np.testing.assert_allclose(rows * columns, np.cumsum(values[::-1])[::-1], rtol=1e-4)
    np.testing.assert_allclose(rows[0] * columns[0], 14.5788499873, rtol=1e-4)
    slope = jax.grad(lambda p: maestro.group_lasso(p))({"w": maestro.cut(params["w"], 0)})
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(slope))


def test_every_pair_of_layer_and_rank_is_drawn():
    params = {"a": factors()["w"], "b": sx.LowRank(jnp.ones((3, 2)), jnp.ones((2, 3)))}
    drawn = set()
    sample = jax.jit(maestro.sampled)
    for seed in range(200):
        cut = sample(jax.random.key(seed), params)
        alive = tuple(int(jnp.sum(jnp.any(leaf.left != 0, axis=0))) for leaf in cut.values())
        drawn.add(alive)
    assert drawn == {(n, 2) for n in range(1, 9)} | {(8, 1)}


def test_shrinking_keeps_the_function_and_gives_up_where_factors_are_larger():
    low = sx.LowRank(jnp.pad(jnp.ones((20, 2)), ((0, 0), (0, 8))), jnp.pad(jnp.ones((2, 20)), ((0, 8), (0, 0))))
    small = maestro.shrink({"low": low, **factors()})
    assert small["low"].rank == 2
    np.testing.assert_allclose(sx.dense(small["low"]), sx.dense(low))
    assert isinstance(small["w"], jax.Array)
    np.testing.assert_allclose(small["w"], W, atol=1e-5)


def ordered():
    layouts = dict.fromkeys(initialized(), DENSE)
    return plugs.run(maestro.decomposed(), initialized(), Evidence(layouts))[0]


def test_objective_is_both_cross_entropies_and_the_penalty_and_the_target_is_a_constant():
    params, key = ordered(), jax.random.key(5)
    log = lambda p: jax.nn.log_softmax(perceptron(p, X))  # noqa: E731
    target = jax.nn.softmax(perceptron(params, X))

    @jax.jit
    @jax.value_and_grad
    def by_hand(params):
        own = -jnp.mean(jnp.take_along_axis(log(params), Y[:, None], axis=1))
        taught = -jnp.mean(jnp.sum(target * log(maestro.sampled(key, params)), axis=1))
        return own + taught + 0.01 * maestro.group_lasso(params)

    ours = jax.jit(jax.value_and_grad(lambda p: maestro.objective(perceptron, p, key, X, Y, 0.01)))(params)
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(by_hand(params))):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


def test_an_mlp_is_trained_shrunk_and_trained_on():
    """Two of twelve inputs matter: two ranks are left, and they say more about new examples than the dense network."""
    tx = optax.adam(0.01)

    def trained(loss, params, steps):
        def step(carry, key):
            params, state = carry
            updates, state = tx.update(jax.grad(loss)(params, key, X[:200], Y[:200]), state)
            return (optax.apply_updates(params, updates), state), None

        run = jax.jit(lambda p: jax.lax.scan(step, (p, tx.init(p)), jax.random.split(jax.random.key(1), steps))[0][0])
        return run(params)

    def plain(params, key, x, y):
        return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(perceptron(params, x), y))

    def ours(params, key, x, y):
        return maestro.objective(perceptron, params, key, x, y, 1e-2)

    def accuracy(params):
        return float(jnp.mean(jnp.argmax(perceptron(params, X[200:]), axis=1) == Y[200:]))

    first = trained(ours, ordered(), 600)
    small = maestro.shrink(first, 0.05)
    assert (small["hidden"].rank, small["last"].rank) == (2, 2)
    np.testing.assert_allclose(perceptron(small, X), perceptron(first, X), atol=0.1)
    last = trained(ours, small, 100)  # with an optimizer state of the new shapes
    assert (last["hidden"].rank, last["last"].rank) == (2, 2)
    assert not np.allclose(last["hidden"].left, small["hidden"].left, atol=1e-3)
    dense = accuracy(trained(plain, initialized(), 600))
    assert 0.75 < dense < accuracy(last)


def test_ordered_dropout_recovers_the_order_of_the_svd():
    """A linear map with singular values 4, 2, 1 on white data: the k leading ranks become its best rank-k map."""
    rng = np.random.default_rng(3)
    u, v = (np.linalg.qr(rng.normal(size=(6, 6)))[0] for _ in range(2))
    target = jnp.asarray(u[:, :3] * [4.0, 2.0, 1.0] @ v[:, :3].T, jnp.float32)
    params = sx.LowRank(*(0.3 * jnp.asarray(rng.normal(size=(6, 6)), jnp.float32) for _ in range(2)))
    tx = optax.adam(optax.cosine_decay_schedule(0.03, 3000))

    def loss(params, key):
        lost = sx.dense(maestro.sampled(key, {"w": params})["w"]) - target  # white data: the loss of the map
        return jnp.sum(jnp.square(lost)) + 1e-3 * maestro.group_lasso({"w": params})

    @jax.jit
    def train(params):
        def step(carry, key):
            params, state = carry
            updates, state = tx.update(jax.grad(loss)(params, key), state)
            return (optax.apply_updates(params, updates), state), None

        return jax.lax.scan(step, (params, tx.init(params)), jax.random.split(jax.random.key(0), 3000))[0][0]

    trained = train(params)
    for k in (1, 2, 3):
        best = u[:, :k] * np.array([4.0, 2.0, 1.0])[:k] @ v[:, :k].T
        assert np.linalg.norm(np.asarray(sx.dense(maestro.cut(trained, k))) - best) < 0.15
    assert maestro.shrink({"w": trained}, 0.05)["w"].shape == (6, 6)
    rows, columns = maestro.suffix_norms(trained)
    assert int(jnp.sum(rows * columns > 0.05)) == 3


def test_maestro_refuses_what_it_cannot_decompose():
    grouped = Layout((0, 1, 2), (3,), groups=2)
    for given, layout, said in (
        (sx.Masked(W, W > 0), DENSE, "w: decomposed works on dense weights; got a Masked"),
        (jnp.ones((3, 3, 2, 8)), grouped, "no weight can be decomposed: w"),
    ):
        with pytest.raises(ValueError, match=said):
            plugs.run(maestro.decomposed(), {"w": given}, Evidence({"w": layout}))


def test_what_cannot_be_truncated_or_cut_is_named():
    trp = lambda kept: lowrank.trained_rank(kept)  # noqa: E731
    with pytest.raises(ValueError, match="kept must be a finite number above 0; got 0"):
        trp(0)
    with pytest.raises(ValueError, match="w holds NaN"):
        plugs.run(trp(0.9), {"w": W.at[0, 0].set(jnp.nan)}, Evidence({"w": DENSE}))
    low = sx.LowRank(W[:, :3], W[:3])
    rounded = sx.LowRank(*(sx.Quantized(jnp.ones(w.shape, jnp.int8), jnp.ones((1, 1))) for w in (low.left, low.right)))
    for leaf in (rounded, sx.Sum((W, low)), sx.Masked(low, W > 0)):
        for use in (maestro.group_lasso, maestro.shrink):
            with pytest.raises(ValueError, match=r"w: a .* Maestro takes plain LowRank weights"):
                use({"w": leaf})


def test_tails_of_half_precision_are_summed_in_float32():
    low = sx.LowRank(jnp.ones((4096, 2), jnp.bfloat16), jnp.ones((2, 8), jnp.bfloat16))
    rows, columns = maestro.suffix_norms(low)
    np.testing.assert_allclose(rows, [8192**0.5, 64.0], rtol=1e-6)
    np.testing.assert_allclose(columns, [4.0, 8**0.5], rtol=1e-6)
