"""Weights and evidence for the contract suites: a Dense kernel, a convolution, a stack of layers, outputs first."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

import spartax as sx
from spartax import quantize
from spartax.records import Evidence, Layout, Objective

SHAPES = {"dense": (24, 20), "conv": (3, 3, 8, 20), "stack": (2, 24, 16), "outputs_first": (24, 20)}
LAYOUTS = {
    "dense": Layout((0,), (1,)),
    "conv": Layout((0, 1, 2), (3,)),
    "stack": Layout((1,), (2,), (0,)),
    "outputs_first": Layout((1,), (0,)),
}


GRIDS = {
    "int8": quantize.integer(8),
    "int4 grouped": quantize.integer(4, 4),
    "int3 asymmetric tensor": quantize.integer(3, channel=False, symmetric=False, scale_dtype="float16"),
    "int4 float zero": quantize.integer(4, 8, symmetric=False, scale_dtype="float16", zero_dtype="float16"),
    "ternary": quantize.ternary(),
    "binary": quantize.binary(group=8),
    "e5m2": quantize.fp8("e5m2", channel=False),
    "nf4": quantize.nf4(),
    "mxfp4": quantize.mx(group=8),
    "mxfp8": quantize.mx("e4m3"),
    "power of two": quantize.power_of_two(scale_dtype="bfloat16"),
    "fixed point": quantize.fixed_point(8, 5),
}

dense = jax.jit(sx.dense)  # one compilation in place of one for every operation in it


def draw(seed=0):
    """Weights of different sizes and of different scales: what ranks them together differs from what does not."""
    rng = np.random.default_rng(seed)
    scales = dict(zip(SHAPES, (0.5, 1.0, 0.3, 2.0)))
    return {p: jnp.asarray(scales[p] * rng.normal(size=s), jnp.float32) for p, s in SHAPES.items()}


@jax.jit
def network(weights, x):
    """Images [B, 5, 5, 8] through every weight: convolution, mean, [24, 20] outputs first, then a head of 52 logits."""
    weights = {**draw(), **weights}
    numbers = ("NHWC", "HWIO", "NHWC")
    x = jax.nn.relu(jax.lax.conv_general_dilated(x, weights["conv"], (1, 1), "VALID", dimension_numbers=numbers))
    hidden = jax.nn.relu(jnp.mean(x, (1, 2)) @ weights["outputs_first"].T)
    heads = jnp.concatenate(list(jax.lax.map(lambda w: hidden @ w, weights["stack"])), axis=1)
    return jnp.concatenate([hidden @ weights["dense"], heads], axis=1)


def cross_entropy(logits, y):
    """One loss for each example."""
    return -jnp.take_along_axis(jax.nn.log_softmax(logits), y[:, None], axis=1)[:, 0]


def shift(key, logits_fn, x, y, *, index):
    """An attack: one step of the sign of the gradient from a drawn start, images of any range."""
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, index)
    x = x + 0.1 * jax.vmap(lambda key: jax.random.normal(key, x.shape[1:]))(keys)
    return x + 0.05 * jnp.sign(jax.grad(lambda x: jnp.sum(cross_entropy(logits_fn(x), y)))(x))


def batch():
    """64 images of correlated pixels, and labels."""
    rng = np.random.default_rng(5)
    x = rng.normal(size=(64, 5, 5, 8)) + 2 * rng.normal(size=(64, 1, 1, 8))
    return jnp.asarray(x, jnp.float32), jnp.asarray(rng.integers(0, 52, 64), jnp.int32)


@functools.cache
def statistics():
    """What `collect` finds in `network`, and the gradients of its loss."""
    x, y = batch()
    found = sx.collect(
        network,
        draw(),
        [(x, y)],
        ("moments", "means", "magnitudes", "peaks", "signals", "ranges", "histograms"),
        loss=cross_entropy,
    )
    grads = jax.jit(jax.grad(lambda w: jnp.mean(cross_entropy(network(w, x), y))))(draw())
    usages = sx.inspect(network, draw(), x)
    return {**found, "grads": grads, "uses": {path: usages[path].uses for path in SHAPES}}


def evidence(weights=None, seed=1):
    """Evidence with every field filled."""
    weights = draw() if weights is None else weights
    return Evidence(
        layouts={path: LAYOUTS[path] for path in weights},
        key=jax.random.key(seed),
        originals=dict(weights),
        objective=Objective(network, (batch(),), cross_entropy),
        step=0,
        **{name: {path: found[path] for path in weights} for name, found in statistics().items()},
    )


def run(transform, params, given):
    """One-shot: (params, info)."""
    params, state = transform.init(params, given)
    params, _, info = transform.update(params, state, given)
    return params, info
