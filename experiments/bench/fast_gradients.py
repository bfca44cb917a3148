"""Gradients of convolutions on CPU, inside a loop and of a whole batch: written out against XLA's own."""

import functools

import jax
import jax.numpy as jnp
from jax import lax

import spartax as sx
from experiments.bench.row import Row, compare
from spartax import models

LAYERS = {  # image side, input channels, output channels, stride, groups
    "3x3, 32 px, 16 to 16": (32, 16, 16, 1, 1),
    "3x3, 16 px, 32 to 32": (16, 32, 32, 1, 1),
    "3x3, 8 px, 64 to 64": (8, 64, 64, 1, 1),
    "3x3, 32 px, 16 to 32, stride 2": (32, 16, 32, 2, 1),
    "3x3, 16 px, 32 to 32, 4 groups": (16, 32, 32, 1, 4),
    "3x3 depthwise, 16 px, 32": (16, 32, 32, 1, 32),
}
WHOLE = {  # as in training: the gradient in the kernel, outside of a loop
    "3x3, 32 px, 16 to 16": (32, 16, 16, 1, 1),
    "3x3, 16 px, 32 to 32": (16, 32, 32, 1, 1),
    "3x3, 8 px, 64 to 64": (8, 64, 64, 1, 1),
    "3x3, 32 px, 64 to 64": (32, 64, 64, 1, 1),
}
STEPS, BATCH = 5, 128


def rows(quick: bool) -> list[Row]:
    batch, repeats = (2, 2) if quick else (16, 3)
    found = []
    for name, (side, inputs, outputs, stride, groups) in LAYERS.items():
        kernel = jax.random.normal(jax.random.key(1), (3, 3, inputs // groups, outputs))
        x = jax.random.uniform(jax.random.key(0), (batch, side, side, inputs))
        found += _pairs(name, _layer(stride, groups), kernel, x, repeats)
    for name, module in {"ResNet-20": models.resnet_cifar(20), "CNN-A": models.CNNA()}.items():
        x = jax.random.uniform(jax.random.key(0), (batch, 32, 32, 3))
        variables = jax.jit(module.init)(jax.random.key(1), x[:1])
        found += _pairs(name, models.eval_apply(module), variables, x, repeats)
    return found + [_whole(name, *shape, 16 if quick else BATCH, repeats) for name, shape in WHOLE.items()]


def _layer(stride, groups):
    numbers = ("NHWC", "HWIO", "NHWC")

    def fn(kernel, x):
        y = lax.conv_general_dilated(
            x, kernel, (stride, stride), "SAME", dimension_numbers=numbers, feature_group_count=groups
        )
        return jnp.tanh(y)

    return fn


def _whole(name, side, inputs, outputs, stride, groups, batch, repeats) -> Row:
    kernel = jax.random.normal(jax.random.key(1), (3, 3, inputs // groups, outputs))
    x = jax.random.uniform(jax.random.key(0), (batch, side, side, inputs))
    fn = _layer(stride, groups)
    ways = {"fast_gradients": sx.fast_gradients(fn), "XLA's own": fn}
    gradients = {way: jax.jit(jax.grad(lambda *both, fn=fn: jnp.sum(fn(*both) ** 2))) for way, fn in ways.items()}
    pair = {way: functools.partial(gradient, kernel, x) for way, gradient in gradients.items()}
    return compare(f"{name}, weights, batch {batch}", pair, repeats=repeats)


def _pairs(name, fn, weights, x, repeats) -> list[Row]:
    """Steps along the gradient in the input, and down the gradient in the weights."""

    def loop(fn, argument):
        gradient = jax.grad(lambda *both: jnp.sum(fn(*both) ** 2), argnums=argument)

        def step(_, both):
            moved = jax.tree.map(lambda a, g: a - 1e-3 * jnp.sign(g), both[argument], gradient(*both))
            return (moved, both[1]) if argument == 0 else (both[0], moved)

        run = jax.jit(lambda *both: lax.fori_loop(0, STEPS, step, both)[argument])
        return functools.partial(run, weights, x)

    found = []
    for argument, what in ((1, "input"), (0, "weights")):
        pair = {"fast_gradients": loop(sx.fast_gradients(fn), argument), "XLA's own": loop(fn, argument)}
        found.append(compare(f"{name}, {what}, {STEPS} steps", pair, repeats=repeats))
    return found
