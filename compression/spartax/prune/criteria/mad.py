"""MAD: weights whose masking does harm on adversarial images matter, to second order."""

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from spartax import catalog, checks, gradients, program
from spartax.arrays import rows
from spartax.records import Array, Attack, Criterion, Evidence, Layout, Weights

LEAST, MOST = math.log(math.expm1(1e-4)), math.log(math.expm1(1.0))  # softplus of these is 1e-4 and 1


class Options(NamedTuple):
    """What is fixed before tracing."""

    attack: Attack
    steps: int
    lr: float


def mad(attack: Attack, *, steps: int = 20, lr: float = 0.1, zero_saliency: str = "paper") -> Criterion:
    """Masking adversarial damage: the rise of the adversarial loss when a weight is masked, block by block.

    For each batch, with the network as it is: attack it; find soft masks `w softplus(m)` that *lower* the loss on the
    attacked images, by Adam from masks of 1, kept in [1e-4, 1]; there, take the Kronecker factors of the Fisher
    information, `A = E[x x^T]` of the inputs and `G` of the output gradients. With `d = w - w softplus(m)`, weight
    `(i, j)` of output `i` scores

        1/2 G_ii d_ij (d_i A)_j

    averaged over all examples; the sum over `j` is the quadratic form of the row. Scores may be negative: masking such
    a weight helps. Biases are not masked. Random starts of the attack go with the contents of an image, so that neither
    its place nor that of its batch counts; masks are learnt by batch, so what is in a batch together does. Use labelled
    training batches, on an adversarially trained network. See Lee, Kim and Ro, Masking Adversarial Damage, arXiv
    2204.02738, whose code ranks all convolutions together but the last linear layer output by output: here, what ranks
    is the allocation and the pattern of all weights.

    Args:
      attack: such as `attacks.pgd(0.03, steps=10, step_size=0.0069)`, that of the paper; called with `index`.
      steps: Adam steps on the masks.
      lr: their learning rate.
      zero_saliency: a mask that would grow stays at 1, so `d` and the score of a useful weight are 0, below every
        positive one. `"paper"` leaves that; `"magnitude"` ranks the zeros among themselves by `|w|`; `"keep"` ranks
        them, by `|w|`, above all other weights. On the toy of the tests, where the attack turns around what large
        weights say, `"keep"` alone beats `prune.magnitude`.

    Raises:
      ValueError: bad options; at use, no labelled batches, loss or key, or saliency that is zero everywhere.
    """
    checks.positive_int("steps", steps)
    checks.in_range("lr", lr, 1e-9, 1e3)
    checks.one_of("zero_saliency", zero_saliency, ("paper", "magnitude", "keep"))
    if not callable(attack):
        raise ValueError(f"attack must be a function such as attacks.pgd(0.03); got {attack!r}.")
    options = Options(attack, steps, float(lr))

    def score(weights: Weights, evidence: Evidence) -> Weights:
        key = catalog.need("key", evidence)
        judge, batches = gradients.judged("mad", weights, evidence)
        wide = gradients.full(weights)
        layouts = tuple((path, evidence.layouts[path]) for path in wide)
        total, count = jax.tree.map(jnp.zeros_like, wide), sum(len(x) for x, _ in batches)
        for x, y in batches:
            of_batch = _saliency(options, judge, layouts, wide, key, x, y)
            total = jax.tree.map(functools.partial(_add, len(x) / count), total, of_batch)
        checks.nonzero("mad: the saliency", total.values())
        placed = total if zero_saliency == "paper" else _placed(total, wide, on_top=zero_saliency == "keep")
        return {path: placed[path] for path in weights}

    return Criterion(frozenset({"objective", "key"}), score)


def _add(part: float, total: Array, new: Array) -> Array:
    return total + part * new


@functools.partial(jax.jit, static_argnums=(0, 2))
def _saliency(
    options: Options, judge: gradients.Judge, layouts: tuple, weights: Weights, key: Array, x: Array, y: Array
) -> Weights:
    """The saliency of one batch."""
    logits_fn = functools.partial(judge.logits, weights)
    attacked = jax.lax.stop_gradient(options.attack(key, logits_fn, x, y, index=numbered(key, x)))
    soft = _soft(weights, _masks(options, judge, weights, attacked, y))
    needs, batches = ("moments", "signals"), [(attacked, y)]
    found = program.collect(judge.logits, soft, batches, needs, paths=list(weights), loss=judge.loss)
    change = jax.tree.map(jnp.subtract, weights, soft)
    return {p: block_saliency(change[p], found["moments"][p], found["signals"][p], of) for p, of in layouts}


def numbered(key: Array, x: Array) -> Array:
    """A number for each image, int32 [B], that follows from its contents alone: a hash of its float32 bits."""
    words = jax.lax.bitcast_convert_type(x.astype(jnp.float32), jnp.uint32)
    drawn = jax.random.bits(key, words.shape[1:], jnp.uint32)
    mixed = (words ^ (words >> 16) ^ drawn) * (drawn | 1)
    total = jnp.sum(mixed ^ (mixed >> 16), axis=range(1, x.ndim), dtype=jnp.uint32)  # wraps, in any order
    return (total >> 1).astype(jnp.int32)


def block_saliency(change: Array, moments: Array, signals: Array, layout: Layout) -> Array:
    """`1/2 G_ii d_ij (d_i A)_j` of the change `d` of a weight, with `A = moments`, `G = signals` of `collect`."""
    d = rows.to_rows(change, layout)
    pulled = jnp.einsum("...oi,...ij->...oj", d, moments, precision=jax.lax.Precision.HIGHEST)
    own = jnp.diagonal(signals, axis1=-2, axis2=-1)[..., None]
    return rows.from_rows(0.5 * own * d * pulled, change.shape, layout)


def _masks(options: Options, judge: gradients.Judge, weights: Weights, x: Array, y: Array) -> Weights:
    """The `m` of soft masks `softplus(m)` that make the loss small."""
    inside = gradients.looped(judge)
    loss = lambda m: inside(jax.tree.map(lambda w, m: w * jax.nn.softplus(m), weights, m), x, y)  # noqa: E731
    tx = optax.adam(options.lr)

    def step(_: Array, carry: tuple[Weights, optax.OptState]) -> tuple[Weights, optax.OptState]:
        m, state = carry
        changes, state = tx.update(jax.grad(loss)(m), state)
        return jax.tree.map(lambda m, change: jnp.clip(m + change, LEAST, MOST), m, changes), state

    start = jax.tree.map(lambda w: jnp.full_like(w, MOST), weights)
    return jax.lax.fori_loop(0, options.steps, step, (start, tx.init(start)))[0]


def _soft(weights: Weights, m: Weights) -> Weights:
    """The masked weights; a mask at its bound is 1 exactly."""
    return jax.tree.map(lambda w, m: jnp.where(m >= jnp.asarray(MOST, m.dtype), w, w * jax.nn.softplus(m)), weights, m)


@functools.partial(jax.jit, static_argnames="on_top")
def _placed(saliency: Weights, weights: Weights, on_top: bool) -> Weights:
    """Scores of zero by `|w|`: above all others, or between the negative and the positive ones."""
    largest = jnp.max(jnp.stack([jnp.max(jnp.abs(w)) for w in weights.values()]))
    if on_top:
        top = jnp.max(jnp.stack([jnp.max(jnp.abs(s)) for s in saliency.values()]))
        place = lambda w: top * (2 + jnp.abs(w) / largest)  # noqa: E731
    else:
        least = jnp.min(jnp.stack([jnp.min(jnp.where(s > 0, s, jnp.inf)) for s in saliency.values()]))
        place = lambda w: 0.5 * jnp.where(least < jnp.inf, least, 1.0) * jnp.abs(w) / largest  # noqa: E731
    return {path: jnp.where(s == 0, place(weights[path]), s) for path, s in saliency.items()}
