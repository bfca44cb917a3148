"""The controller of AdaPT: bits that a weight needs, by its histogram, and bits that its gradients ask for."""

import jax
import jax.numpy as jnp

from spartax.kernels.words import power_of_two
from spartax.records import Array

MOST = 32  # bits of the longest word
FLOOR = 1e-4  # probability spread over all bins, so that no logarithm is infinite
STRATEGIES = {"min": jnp.minimum, "mean": lambda a, b: (a + b + 1) // 2, "max": jnp.maximum}


def divergence(weight: Array, fraction: Array | int, bins: int) -> Array:
    """`KL(P || Q)` of the histograms of a weight and of the weight rounded to f bits behind the point.

    Both have so many equal bins from `-max|w|` to `max|w|`, and a floor of 1e-4 in all.
    """
    wide = weight.astype(jnp.float32).reshape(-1)
    step, largest = power_of_two(-jnp.int32(fraction)), jnp.maximum(jnp.max(jnp.abs(wide)), 1e-30)
    p, q = (_histogram(x, largest, bins) for x in (wide, jnp.round(wide / step) * step))
    return jnp.sum(p * (jnp.log(p) - jnp.log(q)))


def _histogram(x: Array, largest: Array, bins: int) -> Array:
    place = jnp.clip(jnp.floor((x / largest + 1) * (bins / 2)), 0, bins - 1).astype(jnp.int32)
    counts = jnp.zeros(bins, jnp.float32).at[place].add(1)
    return (1 - FLOOR) * counts / x.size + FLOOR / bins


def push_down(weight: Array, eps: float, bins: int) -> Array:
    """The smallest f in [0, 31] whose `divergence` is below eps, int32; 31 if there is none."""
    lossy = lambda f: (f < MOST - 1) & (divergence(weight, f, bins) >= eps)  # noqa: E731
    return jax.lax.while_loop(lossy, lambda f: f + 1, jnp.int32(0))


def gradient_diversity(squares: Array, total: Array) -> Array:
    """`sum_k |g_k|^2 / |sum_k g_k|^2`: 1/n if n gradients agree, 1 if they are orthogonal, more if they cancel.

    Args:
      squares: `sum_k |g_k|^2`.
      total: `|sum_k g_k|^2`.
    """
    return squares / jnp.maximum(total, 1e-30)


def suggestions(fraction: Array, diversity: Array) -> tuple[Array, Array]:
    """How many bits more behind the point, twice: `L = ln(diversity)`, 0 below a diversity of 1, gives

    `s1 = max(ceil(1 / (L - 1)), 1)` where L > 1, else 1, and `s2 = max(ceil(min(32 L^2 - 1, 32) - f), 1)`; int32.
    """
    size = jnp.log(jnp.maximum(diversity, 1.0))
    first = jnp.where(size > 1, jnp.ceil(1 / jnp.maximum(size - 1, 1 / MOST)), 1)
    second = jnp.ceil(jnp.minimum(MOST * size**2 - 1, MOST)) - fraction
    return jnp.maximum(first, 1).astype(jnp.int32), jnp.maximum(second, 1).astype(jnp.int32)


def push_up(fraction: Array, diversity: Array, strategy: str) -> Array:
    """`min(f + s, 32)`, s the smaller, the mean (rounded up) or the larger of the two suggestions."""
    return jnp.minimum(fraction + STRATEGIES[strategy](*suggestions(fraction, diversity)), MOST)


def word(largest: Array, fraction: Array, spare: int) -> tuple[Array, Array]:
    """`(b, f)`: sign, the bits that a number as large as `largest` has before the point, f, and spare bits; b <= 32.

    Where 32 bits are too few, f gives way: saturation costs more than rounding.
    """
    mantissa, exponent = jnp.frexp(largest.astype(jnp.float32))
    before = jnp.where(largest > 0, jnp.maximum(exponent - (mantissa == 0.5), 0), 0)
    fraction = jnp.minimum(fraction, MOST - 1 - before)
    return jnp.clip(fraction + 1 + before + spare, 2, MOST).astype(jnp.int32), fraction.astype(jnp.int32)


def lookback(diversity: Array, least: int, most: int) -> Array:
    """`clip(ceil(most / diversity), least, most)`, int32: gradients that cancel are looked at sooner."""
    return jnp.clip(jnp.ceil(most / jnp.maximum(diversity, 1e-30)), least, most).astype(jnp.int32)
