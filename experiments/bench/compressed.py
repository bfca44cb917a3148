"""`compressed`: what it costs where nothing is compressed, and what it costs to trace."""

import functools

import jax
import jax.numpy as jnp

import spartax as sx
from experiments.bench.row import Row, compare
from spartax import models


def rows(quick: bool) -> list[Row]:
    depth, batch = (8, 4) if quick else (56, 64)
    module = models.resnet_cifar(20 if not quick else 8)
    x = jax.random.uniform(jax.random.key(0), (batch, 32, 32, 3))
    variables = jax.jit(module.init)(jax.random.key(1), x[:1])
    apply = models.eval_apply(module)
    steps = {
        "compressed, all weights dense": functools.partial(sx.compressed(apply), variables, x),
        "jit": functools.partial(jax.jit(apply), variables, x),
    }
    found = [compare("ResNet-20 forward", steps, repeats=3 if quick else 60, note="target: at most 2 % slower")]

    deep = models.resnet_cifar(depth)
    shapes = jax.eval_shape(deep.init, jax.random.key(1), x[:1])
    thin = jax.tree.map(_thin, shapes)
    plain = models.eval_apply(deep)
    tracing = {
        "trace of compressed, all low rank": lambda: jax.make_jaxpr(sx.compressed(_fresh(plain)))(thin, x),
        "trace of the plain function": lambda: jax.make_jaxpr(jax.jit(_fresh(plain)))(shapes, x),
    }
    return [*found, compare(f"ResNet-{depth}", tracing, repeats=3 if quick else 5, note="target: at most 3x slower")]


def _fresh(fn):
    """A new function object, so that JAX cannot answer from its cache of traces."""
    return lambda *args: fn(*args)


def _thin(w: jax.ShapeDtypeStruct):
    if len(w.shape) < 2:
        return w
    shape = functools.partial(jax.ShapeDtypeStruct, dtype=jnp.float32)
    return sx.LowRank(shape((*w.shape[:-1], 2)), shape((2, w.shape[-1])))
