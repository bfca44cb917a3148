"""Values of the losses: golden numbers, and formulas in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import spartax as sx
from spartax import attacks, train
from spartax.train.attacked import averaged_updates, farthest
from spartax.train.divergence import divergence
from spartax.train.losses.smooth_comp_sum import comp_sum

KEY = jax.random.key(0)
T = np.array([[3, 0.5, -2], [0, 1, 0]], np.float32)
S = np.array([[2, 0, -1], [0.5, 0.4, 0.3]], np.float32)
CLEAN = np.array([[2.2, 0.1, -1], [0.6, 0.2, 0.3]], np.float32)
X, Y = jnp.asarray([[0.25, 0.5], [0.75, 0.5]]), jnp.asarray([0, 1])
MOVED = X + 0.125


def table(x):
    """The logits CLEAN at X and S at MOVED, for losses that see nothing else."""
    return jnp.where(jnp.any(x != X), S, CLEAN)


def move(key, logits_fn, x, y):
    del key, logits_fn, y
    return x + 0.125


def teacher(x):
    """T at X; at MOVED it would be something else."""
    return jnp.where(jnp.any(x != X), 9.0, T)


def call(loss, logits_fn):
    return float(loss(train.Network(logits_fn, lambda x: (logits_fn(x), {})), KEY, X, Y)[0])


def softmax(z):
    return np.exp(z) / np.exp(z).sum(1, keepdims=True)


def kl(p, q):
    return (p * np.log(p / q)).sum(1)


def entropy(z):
    return -np.log(softmax(z)[[0, 1], [0, 1]])


def test_distillation_golden():
    np.testing.assert_allclose(call(train.distillation(teacher, alpha=1.0), lambda x: S), 0.19335179, rtol=1e-5)
    mixed = call(train.distillation(teacher, alpha=0.25), lambda x: S)
    np.testing.assert_allclose(mixed, 0.25 * 0.19335179 + 0.75 * entropy(S).mean(), rtol=1e-5)


def test_ard_golden():
    """The student is attacked and the teacher is not."""
    np.testing.assert_allclose(call(train.ard(teacher, move), table), 0.23401852, rtol=1e-3)
    mixed = call(train.ard(teacher, move, alpha=0.25), table)
    np.testing.assert_allclose(mixed, 0.25 * 0.23401852 + 0.75 * entropy(CLEAN).mean(), rtol=1e-3)


def test_rslad_golden():
    # PGD starts with noise, so the second evaluation is at another image than X
    np.testing.assert_allclose(call(train.rslad(teacher, 0.1, steps=1), table), 0.02861288, rtol=1e-4)


def test_defensive_distillation_by_hand():
    soft = -(softmax(T / 20) * np.log(softmax(S / 20))).sum(1).mean()
    np.testing.assert_allclose(call(train.defensive_distillation(teacher), lambda x: S), soft, rtol=1e-6)
    hard = call(train.defensive_distillation(temperature=5.0), lambda x: S)
    np.testing.assert_allclose(hard, entropy(S / 5).mean(), rtol=1e-6)


def test_label_smoothing_by_hand():
    smoothed = 0.8 * np.eye(3)[[0, 1]] + 0.2 / 3
    expected = -(smoothed * np.log(softmax(S))).sum(1).mean()
    np.testing.assert_allclose(call(train.label_smoothing(0.2), lambda x: S), expected, rtol=1e-6)
    attacked = call(train.pgd_at(move, train.label_smoothing(0.2)), table)
    np.testing.assert_allclose(attacked, expected, rtol=1e-6)


def test_trades_by_hand():
    expected = entropy(CLEAN).mean() + 2 * kl(softmax(CLEAN), softmax(S)).mean()
    np.testing.assert_allclose(call(train.trades(0.1, beta=2.0, steps=1), table), expected, rtol=1e-5)


def test_mart_by_hand():
    p, q, i = softmax(CLEAN), softmax(S), np.arange(2)
    rival = np.where(np.eye(3)[[0, 1]] > 0, 0, q).max(1)
    boosted = -np.log(q[i, Y]) - np.log(1 - rival)
    expected = (boosted + 3 * kl(p, q) * (1 - p[i, Y])).mean()
    np.testing.assert_allclose(call(train.mart(move, weight=3.0), table), expected, rtol=1e-5)
    sure = call(train.mart(move), lambda x: jnp.asarray([[-200.0, 200, 0], [0, 0, 200]]))  # p of the rival is 1
    assert np.isfinite(sure)


def test_comp_sum_golden():
    """u = 0.2729172285 of three logits."""
    z = jnp.asarray([[0.0, np.log(0.2), np.log(0.0729172285)]], jnp.float32)
    golden = {0.0: 0.2729172285, 1.0: 0.2413112967, 1.5: 0.2273217612, 2.0: 0.2144029654, 1 + 1e-4: 0.2413112967}
    for tau, value in golden.items():
        np.testing.assert_allclose(comp_sum(z, jnp.zeros(1, int), tau), [value], rtol=1e-4)
    margins = S[[0, 1], [0, 1]][:, None] - S
    u = np.exp(-margins / 2).sum(1) - 1
    np.testing.assert_allclose(comp_sum(S, Y, 1.5, 2.0), ((1 + u) ** -0.5 - 1) / -0.5, rtol=1e-5)


def test_smooth_comp_sum_by_hand():
    margins = lambda z: z[[0, 1], [0, 1]][:, None] - z  # noqa: E731
    moved = np.linalg.norm(margins(S) - margins(CLEAN), axis=1).mean()
    loss = train.smooth_comp_sum(0.1, nu=3.0, steps=1)
    np.testing.assert_allclose(call(loss, table), entropy(CLEAN).mean() + 3 * moved, rtol=1e-5)


def bent(x):
    return jnp.stack([jnp.sin(5 * x[:, 0]), x[:, 1] ** 2, x[:, 0] * x[:, 1]], axis=1)


@pytest.mark.parametrize(("norm", "eps"), [("linf", 0.1), ("l2", 0.15)])
def test_the_inner_problem_is_solved(norm, eps):
    """On a linear network PGD ends in one of the two best opposite points of the ball, as a grid finds them."""
    kernel = jnp.asarray([[3.0, -2.0, 0.0], [1.0, 4.0, -1.0]])
    flat = lambda x: x @ kernel  # noqa: E731
    find = farthest(divergence, eps, norm, 20, None)
    moved = jax.jit(lambda: find(train.Network(flat, lambda x: (flat(x), {})), KEY, X, flat(X)))()
    found = np.asarray(divergence(flat(X), flat(moved)))
    ticks = np.linspace(-eps, eps, 41)
    grid = np.stack(np.meshgrid(ticks, ticks), -1).reshape(-1, 2)
    grid = grid[np.linalg.norm(grid, axis=1) <= eps + 1e-6] if norm == "l2" else grid
    for row in range(2):
        here, near = (softmax(np.asarray(x @ kernel)) for x in (X[row][None], X[row] + grid))
        best = kl(here, near).max()
        assert 0.6 * best <= found[row] <= 1.05 * best


def test_grad_align_by_hand():
    """Cosine of the two gradients, and no cost for a linear network of two classes."""
    linear = lambda x: x @ jnp.asarray([[1.0, -2.0], [0.5, 3.0]])  # noqa: E731
    plain = train.clean()
    np.testing.assert_allclose(call(train.grad_align(plain, 0.2, weight=7.0), linear), call(plain, linear), rtol=1e-4)
    noise = jax.random.uniform(jax.random.fold_in(KEY, 1), X.shape, X.dtype, -0.2, 0.2)

    def slope(x):
        x = np.asarray(x, np.float64)
        inner = np.stack([[5 * np.cos(5 * x[:, 0]), 0 * x[:, 0], x[:, 1]], [0 * x[:, 0], 2 * x[:, 1], x[:, 0]]])
        z = np.stack([np.sin(5 * x[:, 0]), x[:, 1] ** 2, x[:, 0] * x[:, 1]], 1)
        return np.einsum("dkb,bk->bd", inner, softmax(z) - np.eye(3)[[0, 1]])

    one, two = slope(X), slope(X + noise)
    cosine = (one * two).sum(1) / np.linalg.norm(one, axis=1) / np.linalg.norm(two, axis=1)
    expected = call(plain, bent) + 0.5 * (1 - cosine.mean())
    assert (1 - cosine.mean()) > 0.01
    np.testing.assert_allclose(call(train.grad_align(plain, 0.2, weight=0.5), bent), expected, rtol=1e-4)


def awp_step(loss, params, apply):
    """The weights after one step of plain descent at rate 1."""
    state = train.init_state(params, optax.sgd(1.0))
    state, value = train.make_step(loss, optax.sgd(1.0), apply)(state, KEY, X, Y)
    return state.variables, value


def test_awp_is_the_gradient_at_weights_moved_by_hand():
    weight = np.array([[1.0, -0.5, 0.2], [0.3, 0.8, -1.0]], np.float32)
    mask = np.array([[1, 1, 0], [1, 0, 1]], bool)
    params = {"w": sx.Masked(jnp.asarray(weight), jnp.asarray(mask)), "b": jnp.asarray([0.1, 0.0, -0.1])}

    def apply(params, x):
        return x @ sx.dense(params["w"]) + params["b"]

    def gradients(w, b):
        error = (softmax(np.asarray(X) @ w + b) - np.eye(3)[[0, 1]]) / 2
        return (np.asarray(X).T @ error) * mask, error.sum(0)

    kept, bias = weight * mask, np.asarray(params["b"])
    rise, _ = gradients(kept, bias)
    moved = kept + 0.3 * np.linalg.norm(kept) * rise / np.linalg.norm(rise)
    slope, of_bias = gradients(moved, bias)
    got, value = awp_step(train.awp(train.clean(), gamma=0.3), params, apply)
    np.testing.assert_allclose(got["w"].weight, weight - slope, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(got["b"], bias - of_bias, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(value, entropy(np.asarray(X) @ moved + bias).mean(), rtol=1e-5)
    assert np.abs(slope - rise).max() > 1e-2


def test_awp_attacks_the_weights_before_the_move():
    """Both times the attack sees the same logits."""
    seen = []

    def attack(key, logits_fn, x, y):
        jax.debug.callback(lambda z: seen.append(np.asarray(z)), logits_fn(x))
        return x

    apply = lambda params, x: x @ params["w"]  # noqa: E731
    params = {"w": jnp.asarray([[1.0, -0.5, 0.2], [0.3, 0.8, -1.0]])}
    jax.block_until_ready(awp_step(train.awp(train.pgd_at(attack), gamma=0.5), params, apply))
    jax.effects_barrier()
    assert len(seen) == 2
    np.testing.assert_array_equal(*seen)
    with pytest.raises(ValueError, match="network must have its `at`"):
        call(train.awp(train.clean()), table)


def hidden(variables, x):
    return {"small": x * variables, "large": jnp.stack([x[:, 0] ** 4, x[:, 1] ** 4], 1), "dead": 0 * x}


def test_layers_by_hand():
    x, moved = np.asarray(X), np.asarray(MOVED)
    change = lambda a, b: (np.linalg.norm(a - b, axis=1) / np.linalg.norm(a, axis=1)).mean()  # noqa: E731
    small, large = change(x, moved), change(x**4, moved**4)
    measured = train.sustainability(hidden, jnp.float32(3.0), X, MOVED)  # the scale of a layer does not count
    np.testing.assert_allclose([measured["small"], measured["large"]], [small, large], rtol=1e-5)
    assert measured["dead"] < 1e-5
    assert train.most_vulnerable(measured) == ["large"]
    assert set(train.most_vulnerable(measured, deviations=0.0)) == {"large"}
    assert train.most_vulnerable({"a": 1.0, "b": 1.0}) == ["a", "b"]
    loss = train.layer_regularized(move, hidden, {"small": 2.0, "large": 0.5})
    network = train.Network(table, lambda x: (table(x), {}), jnp.float32(3.0))
    value = loss(network, KEY, X, Y)[0]
    np.testing.assert_allclose(value, entropy(S).mean() + 2 * small + 0.5 * large, rtol=1e-5)
    with pytest.raises(ValueError, match="strengths must be one of 'small', 'large', 'dead'; got 'none'"):
        train.layer_regularized(move, hidden, {"none": 1.0})(network, KEY, X, Y)


def test_examples_that_silence_a_layer_do_not_count():
    """Of lengths 5, 0, 0.02 and 5 before, the second and third are silent; they do not pull the weights either."""
    x = jnp.asarray([[3.0, 4.0], [0.0, 0.0], [0.02, 0.0], [4.0, 3.0]])
    shift = jnp.asarray([[0.0, 1.0], [0.05, 0.0], [1.0, 0.0], [0.0, 0.5]])
    one = lambda variables, x: {"one": x * variables}  # noqa: E731
    measured = train.sustainability(one, jnp.float32(2.0), x, x + shift)
    np.testing.assert_allclose(measured["one"], (1 / 5 + 0.5 / 5) / 2, rtol=1e-6)
    assert train.sustainability(one, jnp.float32(2.0), 0 * x, x) == {"one": 0.0}
    assert np.isnan(train.sustainability(one, jnp.float32(np.nan), x, x + shift)["one"])
    two = lambda variables, x: {"one": x + variables}  # noqa: E731

    def value(variables, rows):
        logits = lambda x: 0.0 * x  # noqa: E731
        network = train.Network(logits, lambda x: (logits(x), {}), variables)
        attack = lambda key, logits_fn, x, y: x + shift[rows]  # noqa: E731
        loss = train.layer_regularized(attack, two, {"one": 1.0})
        return loss(network, KEY, x[rows], jnp.zeros(len(rows), jnp.int32))[0]

    all_rows, heard = np.arange(4), np.array([0, 3])
    zero = jnp.zeros(())
    np.testing.assert_allclose(value(zero, all_rows), np.log(2) + 0.15, rtol=1e-6)
    got, want = (jax.grad(value)(zero, rows) for rows in (all_rows, heard))
    np.testing.assert_allclose(got, want, rtol=1e-5)
    assert abs(want) > 1e-3


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -1.0])
def test_a_layer_that_was_not_measured_is_named(bad):
    with pytest.raises(ValueError, match=rf"^measured\['a'\] must be in \[0.0, inf\); got {bad}"):
        train.most_vulnerable({"b": 1.0, "a": bad})


def test_updates_are_averaged():
    one, two = {"s": jnp.asarray([1.0, 2.0])}, {"s": jnp.asarray([3.0, 6.0])}
    np.testing.assert_array_equal(averaged_updates(one, two)["s"], [2.0, 4.0])
    assert averaged_updates({}, {}) == {}


@pytest.mark.parametrize(
    ("build", "named"),
    [
        (lambda: train.trades(-0.1), "eps"),
        (lambda: train.trades(0.1, beta=-1.0), "beta"),
        (lambda: train.trades(0.1, steps=0), "steps"),
        (lambda: train.trades(0.1, "linff"), "norm"),
        (lambda: train.rslad(teacher, -1.0), "eps"),
        (lambda: train.rslad(teacher, 0.1, robust=1.5), "robust"),
        (lambda: train.smooth_comp_sum(-0.1), "eps"),
        (lambda: train.smooth_comp_sum(0.1, rho=0.0), "rho"),
        (lambda: train.smooth_comp_sum(0.1, nu=-1.0), "nu"),
        (lambda: train.smooth_comp_sum(0.1, tau=-1.0), "tau"),
        (lambda: train.grad_align(train.clean(), -0.1), "eps"),
        (lambda: train.grad_align(train.clean(), 0.1, weight=-1.0), "weight"),
        (lambda: train.mart(move, weight=-1.0), "weight"),
        (lambda: train.awp(train.clean(), gamma=-1.0), "gamma"),
        (lambda: train.distillation(teacher, temperature=0.0), "temperature"),
        (lambda: train.distillation(teacher, alpha=2.0), "alpha"),
        (lambda: train.ard(teacher, move, temperature=-1.0), "temperature"),
        (lambda: train.defensive_distillation(temperature=0.0), "temperature"),
        (lambda: train.label_smoothing(1.0), "smoothing"),
        (lambda: train.layer_regularized(move, hidden, {}), "strengths"),
        (lambda: train.layer_regularized(move, hidden, {"small": -1.0}), "strengths"),
        (lambda: train.most_vulnerable({}), "measured"),
        (lambda: attacks.pgd(0.1, random_start=-1.0), "random_start"),
    ],
)
def test_bad_options_are_named(build, named):
    with pytest.raises(ValueError, match=f"^{named} must"):
        build()


@pytest.mark.parametrize("build", [train.distillation, train.defensive_distillation, lambda t: train.rslad(t, 0.1)])
def test_a_teacher_of_other_classes_is_refused(build):
    with pytest.raises(ValueError, match=r"teacher must give logits \(2, 3\) like the student; got \(2, 4\)"):
        call(build(lambda x: jnp.zeros((2, 4))), table)
