"""SynFlow: weights that carry the flow from inputs to outputs, without any data."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from spartax import catalog, checks, gradients, tree
from spartax.kernels import threshold
from spartax.records import Array, Criterion, Evidence, Objective, Weights


def synflow(sparsity: float = 0.99, rounds: int = 100) -> Criterion:
    """Score `|w| dR / d|w|`, removed in rounds: R is the sum of the logits for an image of ones with `|w|` as weights.

    R is linear in the image: biases and means matter only where they decide which units are on. Round k keeps the
    `round((1 - sparsity) ** (k / rounds) n)` entries with the largest scores over all weights together, and the next
    one scores what is left, so that no layer empties before the others. What comes out is the order of removal, later =
    higher, and within a round by score; it serves every sparsity up to the given one, with `prune.pooled()`. No data is
    needed, the shape of an image is enough. Meant for a network at its initialization. In a chain of layers the scores
    of each add up to R. R is kept near one by scaling the sum, which scales all scores alike; the image is scaled only
    where R would overflow, and then once, as biases and means decide which units are on. See Tanaka et al., Pruning
    neural networks without any data by iteratively conserving synaptic flow, arXiv 2006.05467.

    Args:
      sparsity: where the rounds end.
      rounds: 1 to 100.

    Raises:
      ValueError: bad options; at use, no objective, or a network through which nothing flows or too much.
    """
    checks.in_range("sparsity", sparsity, 0.0, 1.0, open_high=True)
    checks.positive_int("rounds", rounds)
    checks.in_range("rounds", rounds, 1, 100)
    run = jax.jit(_order, static_argnums=1)
    measure = jax.jit(_flow, static_argnums=1)

    def score(weights: Weights, evidence: Evidence) -> Weights:
        objective = catalog.need("objective", evidence)
        logits, image, others = tree.argument(objective.logits), _image(objective), _sizes(objective.others or {})
        weights = _sizes(gradients.full(weights))
        counts = _schedule(sum(w.size for w in weights.values()), sparsity, rounds)
        size = _size(lambda size: measure(logits, image, size, weights, others))
        return run(logits, image, weights, others, size, counts)

    return Criterion(frozenset({"objective"}), score)


def _image(objective: Objective) -> jax.ShapeDtypeStruct:
    batch = objective.batches[0]
    x = batch[0] if isinstance(batch, tuple | list) else batch
    return jax.ShapeDtypeStruct((1, *x.shape[1:]), x.dtype)


@jax.jit
def _sizes(weights: Weights) -> Weights:
    return jax.tree.map(jnp.abs, weights)


def _schedule(size: int, sparsity: float, rounds: int) -> np.ndarray:
    """How many entries each round keeps."""
    return np.array([round((1 - sparsity) ** (k / rounds) * size) for k in range(1, rounds + 1)], np.uint32)


def _flow(logits: Callable[..., Array], image: Any, size: Array, weights: Weights, others: Weights) -> Array:
    """R for an image of `size` everywhere, by the derivative in its direction: affine parts drop out."""
    ones = jnp.full(image.shape, size, image.dtype)
    _, change = jax.jvp(lambda x: logits({**others, **weights}, x), (ones,), (ones,))
    return jnp.sum(change)


def _size(flow: Callable[[Array], Array]) -> Array:
    """A size of the image at which the flow is a number other than zero."""
    size = 1.0
    for _ in range(6):
        value = flow(jnp.float32(size))
        if not checks.is_concrete(value) or (np.isfinite(value) and value > 0):
            return jnp.float32(size)
        size *= 1e6 if value == 0 else 1e-6
    raise ValueError(
        "synflow: the sum of the logits for an image of ones, with the sizes of the weights, is not a positive number; "
        "score the network at its initialization, or in float64."
    )


def _order(
    logits: Callable[..., Array], image: Any, weights: Weights, others: Weights, size: Array, counts: Array
) -> Weights:
    """The order of removal as one number for each entry: a power of two for the round, and the score within it."""
    rounds = counts.shape[0]

    def scored(alive: Weights, scale: Array) -> tuple[Array, Weights]:
        left = {path: jnp.where(alive[path], w, 0) for path, w in weights.items()}
        value, slope = jax.value_and_grad(lambda w: scale * _flow(logits, image, size, w, others))(left)
        # What is gone ranks behind a score of zero.
        return value, {path: jnp.where(alive[path], jnp.abs(w * slope[path]), -1) for path, w in left.items()}

    def advance(k: Array, carry: tuple[Weights, Weights, Array]) -> tuple[Weights, Weights, Array]:
        ranks, alive, scale = carry
        value, scores = scored(alive, scale)
        shares = threshold.kth_largest(list(scores.values()), counts[k]).kept
        kept = {path: threshold.top(s, share) for (path, s), share in zip(scores.items(), shares)}
        gone = {path: alive[path] & ~kept[path] for path in kept}
        return _ranked(ranks, scores, gone, k - rounds), kept, jnp.where(value > 0, scale / value, scale)

    everything = {path: jnp.ones(w.shape, bool) for path, w in weights.items()}
    start = (
        {path: jnp.zeros_like(w) for path, w in weights.items()},
        everything,
        1 / _flow(logits, image, size, weights, others),
    )
    ranks, alive, scale = lax.fori_loop(0, rounds, advance, start)
    return _ranked(ranks, scored(alive, scale)[1], alive, 0)


def _ranked(ranks: Weights, scores: Weights, chosen: Weights, power: Array | int) -> Weights:
    """The ranks with those of the chosen entries filled in, `2 ** power` times a number from 0.5 to 0.99."""
    most = [jnp.max(jnp.where(chosen[path], s, 0)) for path, s in scores.items()]
    most = jnp.maximum(jnp.max(jnp.stack(most)), jnp.finfo(jnp.float32).tiny)
    rank = lambda s: jnp.ldexp(0.5 + 0.49 * s / most, power)  # noqa: E731
    return {path: jnp.where(chosen[path], rank(s), ranks[path]) for path, s in scores.items()}
