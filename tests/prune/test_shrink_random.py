"""Random programs: whatever the channels go through, the shrunk network is the masked one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import spartax as sx
from spartax import prune
from tests.prune.channels import pick


class Draw:
    """Weights of a random program: their shapes on the first run, their values on later ones."""

    def __init__(self, seed, params=None):
        self.rng, self.params, self.shapes = np.random.default_rng(seed), params, {}

    def __call__(self, *shape):
        name = f"w{len(self.shapes)}"
        self.shapes[name] = shape
        return jnp.ones(shape) if self.params is None else self.params[name]

    def dense(self, h, width):
        return h @ self(h.shape[-1], width) + (self(width) if self.rng.random() < 0.5 else 0)


def pairs(h):
    return h.reshape(len(h), -1, 2)


def halves(h):
    return h.reshape(len(h), 2, -1)


def centered(h, axis=-1):
    return h - h.mean(axis, keepdims=True)


def scale(h):
    return jax.lax.rsqrt(jnp.mean(h**2, -1, keepdims=True) + 1e-3)


def loop(w, h):
    kernel = w(h.shape[-1], h.shape[-1])
    return jax.lax.scan(lambda c, _: (jnp.tanh(c @ kernel) + c, None), h, None, length=2)[0]


OPERATIONS = [  # (weights, value, another of the same shape, any other) -> value
    *[lambda w, h, same, other: w.dense(h, int(w.rng.choice([4, 6, 8])))] * 3,
    lambda w, h, same, other: h + same,
    lambda w, h, same, other: h * jnp.tanh(same),
    lambda w, h, same, other: jnp.where(same > 0, h, 0.5 * h),
    lambda w, h, same, other: jnp.max(jnp.stack([h, same]), 0),
    lambda w, h, same, other: jnp.concatenate([h, other], -1),
    lambda w, h, same, other: h[:, : max(4, h.shape[1] // 2)],
    lambda w, h, same, other: jnp.pad(h, ((0, 0), (1, 1))),
    lambda w, h, same, other: jnp.tile(h, (1, 2)),
    lambda w, h, same, other: jax.nn.relu(h),
    lambda w, h, same, other: jax.nn.gelu(h),
    lambda w, h, same, other: h * w(h.shape[-1]),
    lambda w, h, same, other: h * scale(h) * w(h.shape[-1]),
    lambda w, h, same, other: centered(h) * scale(centered(h)),
    lambda w, h, same, other: centered(pairs(h)).reshape(h.shape),
    lambda w, h, same, other: (halves(h) * jax.nn.sigmoid(halves(h).sum(2, keepdims=True))).reshape(h.shape),
    lambda w, h, same, other: jnp.einsum("bij,bkj->bik", halves(h), jnp.tanh(halves(same))).reshape(len(h), 4),
    lambda w, h, same, other: pairs(h).swapaxes(1, 2).reshape(h.shape),
    lambda w, h, same, other: pairs(h).sum(2).repeat(2, 1),
    lambda w, h, same, other: jax.nn.softmax(h),
    lambda w, h, same, other: loop(w, h),
]


def program(seed, params, x):
    w = Draw(seed, params)
    values = [w.dense(x, int(w.rng.choice([4, 6, 8])))]
    for _ in range(w.rng.integers(4, 10)):
        h, other = (values[w.rng.integers(len(values))] for _ in range(2))
        alike = [v for v in values if v.shape == h.shape]
        operation = OPERATIONS[w.rng.integers(len(OPERATIONS))]
        values.append(operation(w, h, alike[w.rng.integers(len(alike))], other))
    return sum(jnp.sin(w.dense(v, 3)) for v in values[-3:]), w.shapes


def removed_channels(seed):
    """Mask half the channels of every group of a random program, shrink, compare; how many channels went."""
    x = jnp.asarray(np.random.default_rng(seed).normal(size=(2, 3)), jnp.float32)
    fn = lambda p, x: program(seed, p, x)[0]  # noqa: E731
    shapes = {}
    jax.eval_shape(lambda x: shapes.update(program(seed, None, x)[1]), x)
    rng = np.random.default_rng(seed + 1)
    params = {n: jnp.asarray(rng.choice((-1, 1), s) * rng.uniform(0.2, 1, s), jnp.float32) for n, s in shapes.items()}
    groups = sx.groups(fn, params, x)
    masked = prune.mask_groups(groups, params, pick(groups, 0.5, seed))
    small = prune.shrink(fn, masked, x)
    expected = jax.jit(fn)(sx.dense(masked), x)
    np.testing.assert_allclose(small.apply(small.params, x), expected, rtol=1e-4, atol=1e-4, err_msg=str(seed))
    return sum(gone for gone, _ in small.report.removed.values())


def test_random_programs():
    assert sum(removed_channels(seed) for seed in range(6)) >= 12


@pytest.mark.nightly
@pytest.mark.parametrize("start", range(6, 206, 20))
def test_many_random_programs(start):
    assert sum(removed_channels(seed) for seed in range(start, start + 20)) >= 40
