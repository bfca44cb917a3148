import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import spartax as sx
from spartax import attacks, prune
from spartax.prune.criteria.mad import block_saliency, numbered
from spartax.records import Evidence, Layout, Objective
from tests.oracles import prune as oracle
from tests.oracles.waves import wave

LAYOUTS = {"first": Layout((0,), (1,)), "last": Layout((0,), (1,))}
GOLDEN = [
    [0.0871179899, -0.0013699781, 0.2437653313, -0.0041693521],
    [0.1064117796, 0.069070084, -0.0022774194, 0.250613341],
    [0.0045575844, 0.1258567811, 0.0132737177, 0.0602673472],
]


def test_golden_saliency_and_row_sums():
    """The card writes weights `[out, in]` and gradients of the batch mean; the kernel is the transpose."""
    a, g, w = wave(16, 4), wave(16, 3, a=0.2, b=0.3) / 16, wave(3, 4, a=2.0)
    change = w * (1 - 1 / (1 + np.exp(-wave(3, 4, a=0.4))))
    moments, signals = a.T @ a / 16, 16 * g.T @ g
    arrays = [jnp.asarray(v, jnp.float32) for v in (change.T, moments, signals)]
    found = np.asarray(block_saliency(*arrays, Layout((0,), (1,)))).T
    np.testing.assert_allclose(found, GOLDEN, rtol=1e-4, atol=1e-7)
    assert (found < 0).sum() == 3
    np.testing.assert_allclose(found.sum(1), [0.325343991, 0.4238177852, 0.2039554304], rtol=1e-5)
    quadratic = [0.5 * signals[i, i] * change[i] @ moments @ change[i] for i in range(3)]
    np.testing.assert_allclose(found.sum(1), quadratic, rtol=1e-5)


def test_collected_factors_are_those_of_the_convolution():
    """A = sum a a^T / (B S^2), G = sum (B S g)(B S g)^T / (B S), g the gradient of the batch mean, S positions."""
    rng = np.random.default_rng(0)
    x, y = jnp.asarray(rng.normal(size=(3, 3, 3, 2)), jnp.float32), jnp.array([0, 1, 1])
    kernel = jnp.asarray(rng.normal(size=(2, 2, 2, 2)), jnp.float32)
    conv = functools.partial(jax.lax.conv_general_dilated, window_strides=(1, 1), padding="VALID",
                             dimension_numbers=("NHWC", "HWIO", "NHWC"))  # fmt: skip
    of_output = lambda out: -jax.nn.log_softmax(jnp.sum(out**2, (1, 2)))[jnp.arange(3), y]  # noqa: E731
    net = lambda params, x: jnp.sum(conv(x, params["k"]) ** 2, (1, 2))  # noqa: E731
    loss = lambda logits, y: -jnp.take_along_axis(jax.nn.log_softmax(logits), y[:, None], 1)[:, 0]  # noqa: E731
    found = sx.collect(net, {"k": kernel}, [(x, y)], ("moments", "signals"), loss=loss)
    patches = np.stack([x[:, i : i + 2, j : j + 2].reshape(3, -1) for i in range(2) for j in range(2)], 1)
    a = patches.reshape(12, 8)
    g = np.asarray(jax.grad(lambda out: jnp.mean(of_output(out)))(conv(x, kernel))).reshape(12, 2)
    card = np.kron(a.T @ a / (3 * 4**2), (12 * g).T @ (12 * g) / 12)
    np.testing.assert_allclose(np.kron(found["moments"]["k"], found["signals"]["k"]), card, rtol=1e-3, atol=1e-5)


def test_saliency_is_the_rise_of_a_quadratic_loss():
    """6 x 5 weights at the optimum, residuals of +-1 that no input explains: Fisher = Hessian, so it is exact."""
    rng = np.random.default_rng(1)
    half, kernel = rng.normal(size=(8, 6)), rng.normal(size=(6, 5))
    x = jnp.asarray(np.concatenate([half, half]), jnp.float32)
    signs = rng.choice([-1.0, 1.0], size=(8, 5))
    target = jnp.asarray(np.asarray(x) @ kernel + np.concatenate([signs, -signs]), jnp.float32)
    loss = lambda z, t: 0.5 * jnp.sum((z - t) ** 2, axis=1)  # noqa: E731
    found = sx.collect(lambda p, x: x @ p["w"], {"w": jnp.asarray(kernel, jnp.float32)}, [(x, target)],
                       ("moments", "signals"), loss=loss)  # fmt: skip
    change = kernel * rng.uniform(size=kernel.shape)
    saliency = np.asarray(block_saliency(jnp.asarray(change, jnp.float32), found["moments"]["w"],
                                         found["signals"]["w"], Layout((0,), (1,))))  # fmt: skip
    value = lambda w: float(np.mean(loss(np.asarray(x) @ w, np.asarray(target))))  # noqa: E731
    for output in range(5):
        masked = kernel.copy()
        masked[:, output] -= change[:, output]
        np.testing.assert_allclose(saliency[:, output].sum(), value(masked) - value(kernel), rtol=1e-3)
    for i, output in ((0, 0), (3, 2), (5, 4)):  # one weight alone: d_ij (d_i A)_j has one term
        one = np.zeros_like(change)
        one[i, output] = change[i, output]
        alone = block_saliency(jnp.asarray(one, jnp.float32), found["moments"]["w"], found["signals"]["w"],
                               Layout((0,), (1,)))  # fmt: skip
        np.testing.assert_allclose(np.asarray(alone)[i, output], value(kernel - one) - value(kernel), rtol=2e-3)


def net(weights, x):
    return jax.nn.relu(x @ weights["first"]) @ weights["last"]


def cross_entropy(logits, y):
    return -jnp.take_along_axis(jax.nn.log_softmax(logits), y[:, None], axis=1)[:, 0]


def shift(key, logits_fn, x, y, *, index):
    """An attack that is easy to follow."""
    del key, index
    return x + 0.1 * jnp.sign(jax.grad(lambda x: jnp.sum(cross_entropy(logits_fn(x), y)))(x))


def draw():
    """30 weights, labels of a network of the same shape, two batches."""
    rng = np.random.default_rng(4)
    weights = {"first": rng.normal(size=(4, 3)), "last": rng.normal(size=(3, 6))}
    batches = []
    for size in (5, 7):
        x = rng.normal(size=(size, 4))
        batches.append((x, rng.integers(0, 6, size)))
    return weights, batches


def evidence(batches, loss=cross_entropy):
    single = tuple((jnp.asarray(x, jnp.float32), jnp.asarray(y, jnp.int32)) for x, y in batches)
    return Evidence(LAYOUTS, key=jax.random.key(0), objective=Objective(net, single, loss))


def backward(weights, x, y):
    """Gradients of one example after another, and what the factors are made of, by hand."""
    hidden = np.maximum(x @ weights["first"], 0)
    logits = hidden @ weights["last"]
    p = np.exp(logits - logits.max(1, keepdims=True))
    error = p / p.sum(1, keepdims=True) - np.eye(6)[y]
    below = (error @ weights["last"].T) * (hidden > 0)
    return {"first": (x, below), "last": (hidden, error)}, below @ weights["first"].T


def by_hand(weights, x, y, steps, lr):
    """MAD on one batch, in float64."""
    x = x + 0.1 * np.sign(backward(weights, x, y)[1])
    low, high = np.log(np.expm1(1e-4)), np.log(np.expm1(1.0))
    m = {path: np.full(w.shape, high) for path, w in weights.items()}
    first = {path: np.zeros(w.shape) for path, w in weights.items()}
    second = {path: np.zeros(w.shape) for path, w in weights.items()}
    mask = lambda m: np.where(m >= high, 1, np.log1p(np.exp(m)))  # noqa: E731
    for t in range(1, steps + 1):
        flows, _ = backward({p: w * mask(m[p]) for p, w in weights.items()}, x, y)
        for path, (a, g) in flows.items():
            gradient = (a.T @ g / len(x)) * weights[path] / (1 + np.exp(-m[path]))
            first[path] = 0.9 * first[path] + 0.1 * gradient
            second[path] = 0.999 * second[path] + 0.001 * gradient**2
            step = (first[path] / (1 - 0.9**t)) / (np.sqrt(second[path] / (1 - 0.999**t)) + 1e-8)
            m[path] = np.clip(m[path] - lr * step, low, high)
    flows, _ = backward({p: w * mask(m[p]) for p, w in weights.items()}, x, y)
    saliency = {}
    for path, (a, g) in flows.items():
        change = weights[path] * (1 - mask(m[path]))
        saliency[path] = 0.5 * np.mean(g**2, 0) * change * (a.T @ a / len(x) @ change)
    return saliency


def test_every_step_by_hand_on_two_batches():
    weights, batches = draw()
    single = {path: jnp.asarray(w, jnp.float32) for path, w in weights.items()}
    found = prune.mad(shift, steps=20, lr=0.1).score(single, evidence(batches))
    parts = [by_hand(weights, x, y, 20, 0.1) for x, y in batches]
    for path in weights:
        expected = (5 * parts[0][path] + 7 * parts[1][path]) / 12
        assert np.abs(expected).max() > 1e-3
        np.testing.assert_allclose(found[path], expected, rtol=2e-3, atol=2e-5)
        np.testing.assert_array_equal(np.asarray(found[path]) == 0, expected == 0)


def test_weights_whose_mask_would_grow_are_placed():
    weights, batches = draw()
    single = {path: jnp.asarray(w, jnp.float32) for path, w in weights.items()}
    given = evidence(batches[:1])
    paper, magnitude, keep = (
        np.concatenate([np.ravel(s) for s in prune.mad(shift, steps=5, zero_saliency=z).score(single, given).values()])
        for z in ("paper", "magnitude", "keep")
    )
    sizes = np.concatenate([np.abs(w).ravel() for w in weights.values()])
    zero = paper == 0
    assert 3 < zero.sum() < 27
    for other in (magnitude, keep):
        np.testing.assert_array_equal(other[~zero], paper[~zero])
        np.testing.assert_array_equal(np.argsort(other[zero]), np.argsort(sizes[zero]))
    assert magnitude[zero].min() > 0
    assert magnitude[zero].max() < paper[paper > 0].min()
    assert keep[zero].min() > paper.max()


def test_the_attack_and_the_key_count_and_no_place_does():
    """With PGD from random starts, which go with their images; without an attack the scores differ."""
    weights, batches = draw()
    single = {path: jnp.asarray(w, jnp.float32) for path, w in weights.items()}
    images = [(1 / (1 + np.exp(-x)), y) for x, y in (batches[1], (batches[1][0] + 1, batches[1][1]))]
    given, turned = evidence(images), evidence([(x[::-1], y[::-1]) for x, y in images[::-1]])
    criterion = prune.mad(attacks.pgd(0.2, steps=3))
    attacked, again = criterion.score(single, given), criterion.score(single, turned)
    other = criterion.score(single, given._replace(key=jax.random.key(1)))
    np.testing.assert_allclose(attacked["last"], again["last"], rtol=1e-3, atol=1e-6)
    assert not np.allclose(attacked["last"], other["last"], rtol=0.01)
    clean = prune.mad(lambda key, logits_fn, x, y, index: x).score(single, given)
    assert not np.allclose(attacked["last"], clean["last"], rtol=0.05)


def test_images_have_numbers_of_their_own():
    """Those of black and white ones too, whose bits differ in few places."""
    x = np.unique(np.random.default_rng(0).integers(0, 2, (2000, 3, 5)), axis=0)
    found = np.asarray(numbered(jax.random.key(0), jnp.asarray(x)))
    assert found.min() >= 0
    assert len(np.unique(found)) > 0.99 * len(x)
    np.testing.assert_array_equal(numbered(jax.random.key(0), jnp.asarray(x[::-1])), found[::-1])


def test_what_an_attack_turns_around_goes_though_magnitude_would_keep_it():
    """Three inputs carry 0.5 y with small weights and three 0.04 y with large ones; the attack moves each by 0.1."""
    rng = np.random.default_rng(0)
    y = np.tile([0, 1], 20)
    signs = 2.0 * y - 1
    x = (signs[:, None] * np.repeat([0.5, 0.04], 3) + 0.02 * rng.uniform(-1, 1, (40, 6))).astype(np.float32)
    kernel = np.repeat([0.5, 2.0], 3)[:, None] * np.array([[-1.0, 1.0]])
    objective = Objective(lambda w, x: x @ w["w"], ((jnp.asarray(x), jnp.asarray(y, jnp.int32)),), cross_entropy)
    given = Evidence({"w": Layout((0,), (1,))}, key=jax.random.key(0), objective=objective)
    weights = {"w": jnp.asarray(kernel, jnp.float32)}

    def right(criterion):
        """Accuracy with half of the weights, on the images and under the strongest attack of a linear function."""
        mask = oracle.top(np.asarray(criterion.score(weights, given)["w"]), 6)
        difference = (kernel * mask) @ [-1.0, 1.0]
        margin = signs * (x @ difference)
        return np.mean(margin > 0), np.mean(margin - 0.1 * np.abs(difference).sum() > 0)

    assert right(prune.magnitude()) == (1, 0)
    assert right(prune.mad(shift, zero_saliency="keep")) == (1, 1)
    for other in ("paper", "magnitude"):
        assert right(prune.mad(shift, zero_saliency=other)) == (1, 0)


def test_bad_input_is_named():
    weights, batches = draw()
    single = {path: jnp.asarray(w, jnp.float32) for path, w in weights.items()}
    with pytest.raises(ValueError, match="attack must be a function"):
        prune.mad(0.03)
    with pytest.raises(ValueError, match="zero_saliency must be one of"):
        prune.mad(shift, zero_saliency="top")
    with pytest.raises(ValueError, match="steps must be"):
        prune.mad(shift, steps=0)
    with pytest.raises(ValueError, match="mad: the saliency is zero everywhere"):
        prune.mad(shift).score(single, evidence([(0 * x, y) for x, y in batches[:1]]))
    with pytest.raises(ValueError, match="loss is needed"):
        prune.mad(shift).score(single, evidence(batches, loss=None))
