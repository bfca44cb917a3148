"""Reference outputs of AutoAttack (numbers only) and the formula-defined network and images they belong to."""

import json
from pathlib import Path

import jax.numpy as jnp
import numpy as np

GOLDEN = json.loads((Path(__file__).parent / "golden_autoattack.json").read_text())


def stream(count: int, seed: int) -> np.ndarray:
    """The generator all inputs come from: uniform in [0, 1), float64."""
    state, out = (seed * 2654435761) % 2**32, np.empty(count)
    for position in range(count):
        state = (1664525 * state + 1013904223) % 2**32
        out[position] = state / 2**32
    return out


FIRST = jnp.asarray((stream(192 * 32, 1) - 0.5).reshape(192, 32) * 2 * np.sqrt(6 / 192) * 1.5, jnp.float32)
SECOND = jnp.asarray((stream(320, 2) - 0.5).reshape(32, 10) * 2 * np.sqrt(6 / 32) * 1.5, jnp.float32)
BIAS = jnp.asarray((stream(32, 3) - 0.5) * 0.2, jnp.float32)
X = jnp.asarray(stream(64 * 192, 4).reshape(64, 3, 8, 8), jnp.float32)  # channels first
Y = jnp.asarray(GOLDEN["y"])
NOISE = jnp.asarray(2 * stream(64 * 192, 9).reshape(64, 3, 8, 8) - 1, jnp.float32)


def logits_fn(x):
    """The network, on channels-first images."""
    return jnp.tanh((x.reshape(x.shape[0], -1) - 0.5) @ FIRST + BIAS) @ SECOND


def channels_last(x):
    """The network, on channels-last images."""
    return logits_fn(jnp.transpose(x, (0, 3, 1, 2)))
