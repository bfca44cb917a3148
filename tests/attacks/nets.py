"""Small networks that the attack tests share."""

import jax
import jax.numpy as jnp


def run(attack, logits_fn, x, y, *, index=None, **options):
    """The attack under jit, with key 0."""
    call = jax.jit(lambda x, y, index, options: attack(jax.random.key(0), logits_fn, x, y, index=index, **options))
    return call(x, y, jnp.arange(x.shape[0]) if index is None else index, options)


def linear(seed: int = 0, shape: tuple[int, ...] = (4, 4, 2), classes: int = 5, scale: float = 1.0):
    """A linear model, its images (well inside the box) and its own predictions as labels."""
    weight_key, image_key = jax.random.split(jax.random.key(seed))
    size = 1
    for length in shape:
        size *= length
    weight = scale * jax.random.normal(weight_key, (size, classes))
    x = jax.random.uniform(image_key, (8, *shape), minval=0.3, maxval=0.7)

    def logits_fn(x):
        return (x.reshape(x.shape[0], -1) - 0.5) @ weight

    return logits_fn, weight, x, jnp.argmax(logits_fn(x), axis=1)


def convolution(seed: int = 0, classes: int = 4):
    """A small convolutional network, images in the box and its own predictions as labels."""
    keys = jax.random.split(jax.random.key(seed), 3)
    first, second = 0.5 * jax.random.normal(keys[0], (3, 3, 3, 8)), jax.random.normal(keys[1], (128, classes))
    x = jax.random.uniform(keys[2], (8, 8, 8, 3))

    def logits_fn(x):
        h = jax.lax.conv_general_dilated(x - 0.5, first, (2, 2), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
        return jax.nn.relu(h).reshape(x.shape[0], -1) @ second

    return logits_fn, x, jnp.argmax(logits_fn(x), axis=1)
