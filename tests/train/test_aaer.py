import jax
import jax.numpy as jnp
import numpy as np
import pytest

from spartax import train

KEY, EPS = jax.random.key(3), 0.1


def waves(slope):
    """Two classes along one pixel, so steep that a step of eps can land behind the next valley."""
    return lambda x: jnp.stack([jnp.sin(slope * x[:, 0]), jnp.cos(slope * x[:, 1])], axis=1)


def network(logits_fn):
    return train.Network(logits_fn, lambda x: (logits_fn(x), {"seen": x.shape[0]}), {})


@pytest.fixture(scope="module")
def images():
    rng = np.random.default_rng(0)
    return rng.random((12, 2)).astype(np.float32), rng.integers(0, 2, 12).astype(np.int32)


def entropy(logits, y):
    return np.log(np.exp(logits).sum(1)) - logits[np.arange(len(y)), y]


def by_hand(slope, x, y, step, start, clamp):
    """Start, end, and the losses there, in NumPy."""
    x0 = np.clip(x + np.asarray(jax.random.uniform(KEY, x.shape, jnp.float32, -start * EPS, start * EPS)), 0, 1)
    z = lambda x: np.stack([np.sin(slope * x[:, 0]), np.cos(slope * x[:, 1])], 1)  # noqa: E731
    error = np.exp(z(x0)) / np.exp(z(x0)).sum(1, keepdims=True) - np.eye(2)[y]
    gradient = error * slope * np.stack([np.cos(slope * x0[:, 0]), -np.sin(slope * x0[:, 1])], 1)
    end = x0 + step * EPS * np.sign(gradient)
    end = np.clip(np.clip(end, x - EPS, x + EPS) if clamp else end, 0, 1)
    return z(x0), z(end)


@pytest.mark.parametrize(("step", "start", "clamp"), [(1.25, 1.0, True), (1.0, 2.0, False)])
def test_the_value_is_that_of_the_formula(images, step, start, clamp):
    x, y = images
    before, after = by_hand(40.0, x, y, step, start, clamp)
    plain = train.fgsm_rs(EPS, step=step, start=start, clamp=clamp)
    value, updates = plain(network(waves(40.0)), KEY, x, y)
    np.testing.assert_allclose(value, entropy(after, y).mean(), rtol=1e-5)
    assert updates == {"seen": 12}

    fall, moved = entropy(before, y) - entropy(after, y), ((after - before) ** 2).sum(1)
    bad = fall > 0
    assert 2 <= bad.sum() <= 10
    more = bad.mean() * (2.5 * fall[bad].mean() + 1.5 * max(moved[bad].mean() - moved[~bad].mean(), 0))
    assert more > 0.01
    loss = train.aaer(EPS, step=step, start=start, clamp=clamp)
    value, updates = loss(network(waves(40.0)), KEY, x, y)
    np.testing.assert_allclose(value, entropy(after, y).mean() + more, rtol=1e-5)
    assert updates == {"seen": 12, "log": {"abnormal": pytest.approx(bad.mean())}}


def test_without_abnormal_examples_it_is_fgsm_rs_and_its_gradient_finite(images):
    x, y = images

    def value(loss, kernel):
        flat = lambda x: x @ kernel  # noqa: E731
        return loss(network(flat), KEY, x, y)[0]

    kernel = jnp.asarray([[1.0, -0.5], [0.3, 0.2]])
    heavy = train.aaer(EPS, weights=(50.0, 50.0, 50.0), through=True)
    for function in (lambda f: f, jax.grad):
        one, two = (function(lambda k, loss=loss: value(loss, k))(kernel) for loss in (heavy, train.fgsm_rs(EPS)))
        np.testing.assert_allclose(one, two, rtol=1e-6)
        assert np.all(np.isfinite(one))


def test_only_the_abnormal_examples_are_pulled(images):
    """The gradient of the second term alone: through f(x') of abnormal examples, and of the first if asked."""
    x, y = images

    def gradient(weights, through=False):
        loss = train.aaer(EPS, step=1.0, start=2.0, clamp=False, weights=weights, through=through)
        scaled = lambda t: network(lambda x: t * waves(40.0)(x))  # noqa: E731
        return jax.grad(lambda t: loss(scaled(t), KEY, x, y)[0])(1.0)

    plain = gradient((0.0, 0.0, 0.0))
    np.testing.assert_allclose(gradient((1.0, 3.0, 0.0)), plain, rtol=1e-6)  # detached, as published
    before, after = by_hand(40.0, x, y, 1.0, 2.0, False)
    bad = entropy(before, y) > entropy(after, y)
    p = np.exp(after) / np.exp(after).sum(1, keepdims=True)
    slope = ((p - np.eye(2)[y]) * after).sum(1)  # of CE(t f) in t at 1
    np.testing.assert_allclose(gradient((1.0, 3.0, 0.0), True), plain - 3 * bad.mean() * slope[bad].mean(), rtol=1e-4)
    moved = ((after - before) ** 2).sum(1)
    pull = 2 * ((after - before) * after).sum(1)[bad].mean()
    pull = pull if moved[bad].mean() > moved[~bad].mean() else 0.0
    assert pull != 0
    np.testing.assert_allclose(gradient((1.0, 0.0, 2.0)), plain + 2 * bad.mean() * pull, rtol=1e-4)


def test_the_alarm_rings_for_a_network_that_fools_one_step():
    """A staircase whose slope points away from the nearer edge: FGSM of the full length jumps over the valley."""
    x = np.full((20, 1), 0.5, np.float32)
    y = np.zeros(20, np.int32)

    def misleading(x):
        """Wrong only in the middle of the way to where the gradient leads."""
        t = x[:, 0] - 0.5
        margin = 1.0 - 10 * t - 8.0 * jnp.exp(-(((t - 0.05) / 0.02) ** 2)) + 30 * jax.nn.relu(t - 0.05)
        return jnp.stack([margin, jnp.zeros_like(margin)], axis=1)

    found = train.overfitting(misleading, KEY, x, y, 0.1)
    assert found == (1.0, 0.0, 1.0, True)
    traces, counts = [], []

    def counted(scale, x):
        traces.append(1)
        return scale * misleading(x)

    for scale in (1.0, 2.0):
        assert train.overfitting(jax.tree_util.Partial(counted, scale), KEY, x, y, 0.1).alarm
        counts.append(len(traces))
    assert counts[1] <= counts[0] + 1  # nothing is compiled again; the number of classes is asked for
    honest = train.overfitting(lambda x: jnp.stack([1 - 2 * x[:, 0], 0 * x[:, 0]], 1), KEY, x, y, 0.1)
    assert not honest.alarm
    assert honest.gap == honest.one_step - honest.many_steps


@pytest.mark.parametrize(
    ("build", "named"),
    [
        (lambda: train.fgsm_rs(-0.1), "eps"),
        (lambda: train.aaer(0.1, step=-1.0), "step"),
        (lambda: train.aaer(0.1, weights=(1.0, 2.0)), "weights"),
        (lambda: train.aaer(0.1, weights=(1.0, -2.0, 1.0)), "weights"),
        (lambda: train.overfitting(waves(1.0), KEY, np.zeros((1, 2)), np.zeros(1, int), 0.1, limit=2.0), "limit"),
        (lambda: train.overfitting(waves(1.0), KEY, np.full((1, 2), 2.0), np.zeros(1, int), 0.1), "x must lie in"),
        (lambda: train.overfitting(waves(1.0), KEY, np.zeros((1, 2)), np.full(1, 2), 0.1), "y must lie in"),
    ],
)
def test_bad_options_are_named(build, named):
    with pytest.raises(ValueError, match=named):
        build()
