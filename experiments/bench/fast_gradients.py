"""Input gradients of convolutions inside a loop on CPU: the explicit backward rule against XLA's own."""

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
STEPS = 5


def rows(quick: bool) -> list[Row]:
    batch, repeats = (2, 2) if quick else (64, 7)
    found = []
    for name, (side, inputs, outputs, stride, groups) in LAYERS.items():
        kernel = jax.random.normal(jax.random.key(1), (3, 3, inputs // groups, outputs))
        fn = _layer(kernel, stride, groups)
        found.append(_pair(name, fn, jax.random.uniform(jax.random.key(0), (batch, side, side, inputs)), repeats))
    for name, module in {"ResNet-20": models.resnet_cifar(20), "CNN-A": models.CNNA()}.items():
        x = jax.random.uniform(jax.random.key(0), (batch, 32, 32, 3))
        variables = jax.jit(module.init)(jax.random.key(1), x[:1])
        found.append(_pair(name, functools.partial(models.eval_apply(module), variables), x, repeats))
    return found


def _layer(kernel, stride, groups):
    numbers = ("NHWC", "HWIO", "NHWC")

    def fn(x):
        y = lax.conv_general_dilated(
            x, kernel, (stride, stride), "SAME", dimension_numbers=numbers, feature_group_count=groups
        )
        return jnp.tanh(y)

    return fn


def _pair(name, fn, x, repeats) -> Row:
    def ascent(fn):
        gradient = jax.grad(lambda x: jnp.sum(fn(x) ** 2))
        run = jax.jit(lambda x: lax.fori_loop(0, STEPS, lambda i, x: x + 1e-3 * jnp.sign(gradient(x)), x))
        return lambda: run(x)

    pair = {"fast_gradients": ascent(sx.fast_gradients(fn)), "XLA's own": ascent(fn)}
    return compare(f"{name}, {STEPS} steps", pair, repeats=repeats)
