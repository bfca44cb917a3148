"""A layer with correlated inputs, for roundings that look at them."""

import functools

import jax.numpy as jnp
import numpy as np

from spartax import quantize
from spartax.quantize.codes import decode
from spartax.quantize.records import Part
from spartax.records import Evidence, Layout

DENSE = Layout((0,), (1,))


@functools.cache
def layer(seed=0):
    """A kernel [20 inputs, 12 outputs], float32, and the moments of its correlated inputs, float64."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(200, 6)) @ rng.normal(size=(6, 20)) + 0.3 * rng.normal(size=(200, 20))
    return rng.normal(size=(20, 12)).astype(np.float32), x.T @ x / 200


def part(moments, layout=DENSE, kept=None, alone=True):
    """What a rounding knows of the weight `w`."""
    moments = None if moments is None else {"w": jnp.asarray(moments, jnp.float32)}
    return Part("w", layout, Evidence({"w": layout}, moments=moments), kept, alone=alone)


def encode(rounding, kernel, grid, given):
    """(codes, scales, notes) of a kernel."""
    kernel = jnp.asarray(kernel, jnp.float32)
    scales = quantize.absmax().fit(kernel, grid, given)
    codes, notes = rounding.report(kernel, scales, grid, given)
    return codes, scales, {name: float(value) for name, value in notes.items()}


def loss(change, moments):
    """`tr(D H D^T)` of the change of a kernel `[inputs, outputs]`."""
    return float(np.einsum("io,ij,jo->", np.asarray(change, np.float64), moments, np.asarray(change, np.float64)))


def loss_of(codes, scales, grid, kernel, moments):
    return loss(np.asarray(decode(jnp.asarray(codes), scales, grid)) - kernel, moments)


def better(expected, scales, grid, kernel, moments, kept=None):
    """Integer codes as expected, but for outputs of which the nearest ones lose less."""
    zero = 0 if scales.zero is None else np.asarray(scales.zero)
    scale, inside = np.asarray(scales.scale, np.float64), np.ones_like(kernel) if kept is None else kept
    nearest = np.clip(np.round(kernel / scale) + zero, *grid.codes)
    off = [((codes - zero) * scale - kernel) * inside for codes in (expected, nearest)]
    first, second = (np.einsum("io,ij,jo->o", change, moments, change) for change in off)
    return np.where(first < second, expected, nearest)
