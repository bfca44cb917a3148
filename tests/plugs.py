"""Weights and evidence for the contract suites: a Dense kernel, a convolution, a stack of layers, outputs first."""

import jax
import jax.numpy as jnp
import numpy as np

import spartax as sx
from spartax.records import Evidence, Layout

SHAPES = {"dense": (24, 20), "conv": (3, 3, 8, 20), "stack": (2, 24, 16), "outputs_first": (24, 20)}
LAYOUTS = {
    "dense": Layout((0,), (1,)),
    "conv": Layout((0, 1, 2), (3,)),
    "stack": Layout((1,), (2,), (0,)),
    "outputs_first": Layout((1,), (0,)),
}


dense = jax.jit(sx.dense)  # one compilation in place of one for every operation in it


def draw(seed=0):
    """Weights of different sizes and of different scales: what ranks them together differs from what does not."""
    rng = np.random.default_rng(seed)
    scales = dict(zip(SHAPES, (0.5, 1.0, 0.3, 2.0)))
    return {p: jnp.asarray(scales[p] * rng.normal(size=s), jnp.float32) for p, s in SHAPES.items()}


def evidence(weights=None, seed=1):
    """Evidence with every field filled."""
    weights = draw() if weights is None else weights
    return Evidence(
        layouts={path: LAYOUTS[path] for path in weights},
        key=jax.random.key(seed),
        originals=dict(weights),
        uses=dict.fromkeys(weights, ()),
        grads={path: jnp.asarray(np.cos(3.0 * np.asarray(w) + 0.1)) for path, w in weights.items()},
    )


def run(transform, params, given):
    """One-shot: (params, info)."""
    params, state = transform.init(params, given)
    params, _, info = transform.update(params, state, given)
    return params, info
