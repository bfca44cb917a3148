"""Golden numbers: deterministic inputs without random numbers, and results computed once in float64."""

import json
import pathlib

import jax.numpy as jnp
import numpy as np

from spartax.records import Evidence, Layout, Objective

NUMBERS = json.loads((pathlib.Path(__file__).parents[1] / "golden" / "compression.json").read_text())


def inputs():
    """(W [6, 16] with outputs first, X [16, 96] with one column per token)."""
    i, j = np.arange(6)[:, None], np.arange(16)[None]
    weight = np.sin(1 + 3.1 * i + 7.3 * j + 0.11 * i * j)
    j, k = np.arange(16)[:, None], np.arange(96)[None]
    wave = np.cos(0.5 * j + 0.37 * k) + 0.5 * np.sin(0.19 * j * k + 0.3) + 0.2 * np.cos(0.071 * (j + 1) ** 2 * k)
    x = wave * (1 + 0.25 * j)
    assert np.isclose(weight.sum(), 1.2375995)
    assert np.isclose(x.sum(), 16.7692560)
    return weight, x


def output_error(kernel):
    """Squared error of the output, for a kernel `[16, 6]` that stands for W."""
    weight, x = inputs()
    return float(np.sum(((weight - np.asarray(kernel, np.float64).T) @ x) ** 2))


def regression(temperature=1.0):
    """Weights [5, 1] and evidence of the linear regression `mean((A w - y)^2) / 2` on five rows of X."""
    inputs_, targets = jnp.asarray(inputs()[1][:5].T / 3, jnp.float32), jnp.sin(0.3 * jnp.arange(96.0))
    weights = {"w": jnp.array([[1.0], [-0.5], [0.2], [0.7], [-0.3]])}
    loss = lambda logits, y: jnp.square(temperature * logits[:, 0] - y) / 2  # noqa: E731
    objective = Objective(lambda w, x: x @ w["w"], ((inputs_, targets),), loss)
    return weights, Evidence({"w": Layout((0,), (1,))}, objective=objective)


def calibrated():
    """Kernel `[16, 6]` that stands for W, and evidence with the moments of X."""
    weight, x = inputs()
    moments = {"w": jnp.asarray(x @ x.T / x.shape[1], jnp.float32)}
    return {"w": jnp.asarray(weight.T, jnp.float32)}, Evidence({"w": Layout((0,), (1,))}, moments=moments)
