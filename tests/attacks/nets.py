"""Small networks that the attack tests share."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np


def run(attack, logits_fn, x, y, *, index=None, **options):
    """The attack under jit, with key 0."""
    return _jitted(attack, logits_fn)(x, y, jnp.arange(x.shape[0]) if index is None else index, options)


@functools.lru_cache(maxsize=1)
def _jitted(attack, logits_fn):
    return jax.jit(lambda x, y, index, options: attack(jax.random.key(0), logits_fn, x, y, index=index, **options))


def linear(seed: int = 0, shape: tuple[int, ...] = (4, 4, 2), classes: int = 5, scale: float = 1.0):
    """A linear model, its images (well inside the box) and its own predictions as labels."""
    rng = np.random.default_rng(seed)
    weight = jnp.asarray(scale * rng.normal(size=(math.prod(shape), classes)), jnp.float32)
    x = jnp.asarray(rng.uniform(0.3, 0.7, (8, *shape)), jnp.float32)

    def logits_fn(x):
        return (x.reshape(x.shape[0], -1) - 0.5) @ weight

    return logits_fn, weight, x, jnp.argmax(logits_fn(x), axis=1)


@functools.cache
def convolution(seed: int = 0, classes: int = 4, count: int = 8):
    """A small convolutional network, images in the box and its own predictions as labels."""
    rng = np.random.default_rng(seed)
    first = jnp.asarray(0.5 * rng.normal(size=(3, 3, 3, 8)), jnp.float32)
    second = jnp.asarray(rng.normal(size=(128, classes)), jnp.float32)
    x = jnp.asarray(rng.uniform(0, 1, (count, 8, 8, 3)), jnp.float32)

    @jax.jit
    def logits_fn(x):
        h = jax.lax.conv_general_dilated(x - 0.5, first, (2, 2), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
        return jax.nn.relu(h).reshape(x.shape[0], -1) @ second

    return logits_fn, x, jnp.argmax(logits_fn(x), axis=1)


def two_layers(seed: int = 0, classes: int = 4, count: int = 8):
    """A small tanh network with its weights as arguments, images in the box and its own predictions as labels."""
    rng = np.random.default_rng(seed)
    first, second = (
        jnp.asarray(0.3 * rng.normal(size=(192, 16)), jnp.float32),
        jnp.asarray(rng.normal(size=(16, classes))),
    )
    x = jnp.asarray(rng.uniform(0, 1, (count, 8, 8, 3)), jnp.float32)

    def apply(weights, x):
        return jnp.tanh((x.reshape(x.shape[0], -1) - 0.5) @ weights[0]) @ weights[1]

    logits_fn = jax.tree_util.Partial(apply, (first, second.astype(jnp.float32)))
    return logits_fn, x, jnp.argmax(logits_fn(x), axis=1)
