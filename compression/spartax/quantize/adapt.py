"""AdaPT: fixed-point weights whose word lengths follow the histogram and the gradients of each layer."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from spartax import catalog, checks, tree
from spartax.arrays import FakeQuantized, FixedPoint
from spartax.quantize import word_lengths
from spartax.quantize.training import exchanged, fake_weights, found, relative_error, shared_shape
from spartax.records import Array, Evidence, Info, Layout, Params, Transform


class Window(NamedTuple):
    """The gradients of one weight since its words were last chosen.

    Attributes:
      squares: `sum_k |g_k|^2`, float32 [*stack].
      total: `sum_k g_k`, float32, of the shape of the weight.
      count: how many there are, int32.
      length: after how many words are chosen again, int32.
    """

    squares: Array
    total: Array
    count: Array
    length: Array


def adapt(
    strategy: str = "mean",
    *,
    every: int = 10,
    lookback: tuple[int, int] = (25, 100),
    eps: float = 0.01,
    bins: int = 100,
    spare: int = 4,
) -> Transform:
    """Each weight is a word `<b, f>` wherever it is used; each layer chooses b and f again and again in training.

    PushDown finds the fewest bits behind the point that lose no information: the smallest f with
    `KL(P_W || P_Q(W)) < eps`. Training begins there. The gradients seen since the last choice then say how many more
    are needed, by their diversity `D = sum_k |g_k|^2 / |sum_k g_k|^2` (PushUp): with `L = ln D`,
    `s1 = max(ceil(1 / (L - 1)), 1)` if L > 1 else 1, `s2 = max(min(32 L^2 - 1, 32) - f, 1)`, `f <- min(f + s, 32)`.
    b holds the largest entry, the sign and `spare` bits. The next choice follows after
    `clip(ceil(most / D), least, most)` gradients. L is 0 for D < 1, gradients that agree: its square would else ask for
    more bits the better they agree. Words are integer arrays of the leaf: new ones retrace nothing, and no optimizer
    moves them. `sx.pack` keeps words of up to 16 bits.

    See "Adaptive Precision Training (AdaPT): A dynamic fixed point quantized training approach for DNNs" (S052), as far
    as its abstract tells. There, words begin as <8, 4>; the penalty on their lengths in the loss, and the change of
    strategy where the loss stops falling, are left to the caller here.

    Args:
      strategy: s is the "min", the "mean" (rounded up) or the "max" of s1 and s2.
      every: training steps between two gradients, which are of the dense weight on one batch.
      lookback: least and most gradients between two choices; the most at first.
      eps: the KL divergence that counts as no loss, in nats.
      bins: of the histograms.
      spare: bits before the point that the largest entry does not need yet.

    Raises:
      ValueError: values outside their ranges; at use, a weight quantized already, missing gradients.
    """
    checks.one_of("strategy", strategy, tuple(word_lengths.STRATEGIES))
    least, most = lookback
    for name, value in {"every": every, "lookback[0]": least, "bins": bins}.items():
        checks.positive_int(name, value)
    checks.positive_int("lookback[1]", most, least=least)
    checks.positive("eps", eps)
    checks.positive_int("spare", spare, least=0)
    needed = (eps, bins, spare)

    def init(params: Params, evidence: Evidence) -> tuple[Params, dict[str, Window]]:
        params = fake_weights(params, evidence, lambda w, layout, _: _words(w, shared_shape(w.shape, layout), *needed))
        weights = tree.pick(params, evidence.layouts)
        return params, {path: _empty(w.shape, evidence.layouts[path], most) for path, w in weights.items()}

    def update(params: Params, state: dict[str, Window], evidence: Evidence) -> tuple[Params, dict[str, Window], Info]:
        gradients, new, windows, info = catalog.need("grads", evidence), tree.pick(params, evidence.layouts), {}, {}
        for path, weight in new.items():
            own, windows[path] = found(path, weight, FakeQuantized, FixedPoint), _seen(state[path], gradients[path])
            if int(windows[path].count) >= int(windows[path].length):
                diversity = _diversity(windows[path])
                words = iter([_words(x.weight, x.quantizer.bits.shape, *needed, diversity, strategy) for x in own])
                new[path] = exchanged(weight, FakeQuantized, FixedPoint, lambda _, words=words: next(words))
                length = int(word_lengths.lookback(jnp.max(diversity), least, most))
                windows[path] = _empty(weight.shape, evidence.layouts[path], length)
                own = found(path, new[path], FakeQuantized, FixedPoint)
            info[path] = _told(own, new[path], int(windows[path].length))
        return tree.replace(params, new), windows, info

    return Transform(frozenset({"grads"}), init, update, due=lambda step: step > 0 and step % every == 0)


def _told(own: list[FakeQuantized], weight: Any, length: int) -> dict:
    bits, fraction = (
        [int(n) for leaf in own for n in getattr(leaf.quantizer, name).reshape(-1)] for name in ("bits", "fraction")
    )
    return {
        "method": "adapt",
        "bits": bits,
        "fraction": fraction,
        "lookback": length,
        "relative_error": relative_error(own, weight),
    }


def _empty(shape: tuple[int, ...], layout: Layout, length: int) -> Window:
    squares = jnp.zeros([shape[axis] for axis in layout.stack], jnp.float32)
    return Window(squares, jnp.zeros(shape, jnp.float32), jnp.int32(0), jnp.int32(length))


@jax.jit
def _seen(window: Window, gradient: Array) -> Window:
    gradient = gradient.astype(jnp.float32)
    squares = window.squares + _square(gradient, window.squares.ndim)
    return window._replace(squares=squares, total=window.total + gradient, count=window.count + 1)


@jax.jit
def _diversity(window: Window) -> Array:
    return word_lengths.gradient_diversity(window.squares, _square(window.total, window.squares.ndim))


def _square(x: Array, stack: int) -> Array:
    """`|x|^2` of each layer of a stack."""
    return jnp.sum(x**2, tuple(range(stack, x.ndim)))


@jax.jit(static_argnums=(1, 2, 3, 4, 6))
def _words(
    weight: Array,
    shape: tuple[int, ...],
    eps: float,
    bins: int,
    spare: int,
    diversity: Array | None = None,
    strategy: str = "mean",
) -> FixedPoint:
    """The words of each layer, of the given shape; without a diversity, those that PushDown finds."""
    count = math.prod(shape)
    rows = weight.reshape(count, -1)
    fraction = jax.vmap(lambda row: word_lengths.push_down(row, eps, bins))(rows)
    if diversity is not None:
        own = diversity.reshape(-1) if diversity.size == count else jnp.max(diversity)
        fraction = word_lengths.push_up(fraction, own, strategy)
    bits, fraction = word_lengths.word(jnp.max(jnp.abs(rows), axis=1), fraction, spare)
    return FixedPoint(bits.reshape(shape), fraction.reshape(shape))
