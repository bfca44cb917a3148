"""One look of an attack at the network: loss, gradient and success of every example, and the best image so far."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from spartax.attacks import losses, threats
from spartax.attacks.network import Network
from spartax.records import Array


class Look(NamedTuple):
    """What one evaluation says.

    Attributes:
      loss: [B], higher is better for the attacker.
      wrong: bool [B], the prediction is not `y`.
      logits: [B, K].
      gradient: of the example's own loss in its image, [B, ...]; None where only the forward pass was run.
    """

    loss: Array
    wrong: Array
    logits: Array
    gradient: Any = None


def fold(keys: Array, number: Array | int) -> Array:
    """One more number folded into the key of every example, [B]."""
    return jax.vmap(jax.random.fold_in, (0, None))(keys, number)


def value(loss: losses.Loss, logits: Array, y: Array, targets: Array | None) -> Array:
    """The loss [B], with targets for the targeted losses."""
    return loss(logits, y) if targets is None else loss(logits, y, targets)


def forward(network: Network, loss: losses.Loss, x: Array, y: Array, keys: Array, targets: Array | None = None) -> Look:
    """Loss and success at `x`, without a gradient."""
    logits = network(x, keys)
    return Look(value(loss, logits, y, targets), jnp.argmax(logits, axis=1) != y, logits)


def look(
    network: Network, loss: losses.Loss, x: Array, y: Array, keys: Array, targets: Array | None = None, eot: int = 1
) -> Look:
    """Loss, success and gradient at `x`, by one forward and one backward pass (`eot` of each for a model that draws).

    With `eot` above one (expectation over transformation, Athalye et al., arXiv 1802.00420) the gradient is the mean
    over the draws; loss, logits and success are those of the last draw, as in AutoAttack.
    """

    def total(x: Array, keys: Array) -> tuple[Array, Look]:
        seen = forward(network, loss, x, y, keys, targets)
        return jnp.sum(seen.loss), seen

    def once(draw: Array | int) -> tuple[Array, Look]:
        return jax.grad(total, has_aux=True)(x, fold(keys, draw))

    if eot == 1:
        gradient, seen = once(0)
        return seen._replace(gradient=gradient)
    summed, seen = jax.lax.scan(lambda g, draw: _add(g, once(draw)), jnp.zeros_like(x), jnp.arange(eot))
    return jax.tree.map(lambda leaf: leaf[-1], seen)._replace(gradient=summed / eot)


def _add(gradient: Array, draw: tuple[Array, Look]) -> tuple[Array, Look]:
    return gradient + draw[0], draw[1]


class Best(NamedTuple):
    """The best image found for each example: a successful one before any other, then the higher loss."""

    x: Array
    success: Array
    loss: Array


def nothing(x: Array) -> Best:
    """Before the first look: the clean image, which any look beats."""
    rows = jnp.zeros_like(x[(slice(None), *(0,) * (x.ndim - 1))])  # made like the images, sharded as these are
    return Best(x, rows.astype(bool), rows - jnp.inf)


def better(best: Best, x: Array, success: Any, loss: Array) -> Best:
    """`best` with the rows replaced that `x` beats."""
    wins = (success & ~best.success) | ((success == best.success) & (loss > best.loss))
    image = jnp.where(threats.per_example(wins, x), x, best.x)
    return Best(image, jnp.where(wins, success, best.success), jnp.where(wins, loss, best.loss))
