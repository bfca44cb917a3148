"""The Square attack: random search with square windows, no gradients."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from spartax import checks
from spartax.attacks import losses, noise, objective, threats
from spartax.attacks.network import Network
from spartax.attacks.resumable import Outcome, Resumable, Rows
from spartax.attacks.square_moves import Chance, Moves, lines, moves, signs
from spartax.attacks.square_patterns import window_sides
from spartax.records import Array

_STREAM = 3  # folded into every key, so that attacks given the same key do not draw the same numbers


class State(NamedTuple):
    """A run between two queries; every array has the example axis first.

    `x0, y, keys` are the problem; windows are drawn from `shared`, which is `keys` unless parity is asked for; `x` is
    the best image so far and `margin` its `z_y - max z_other`; `number` is the query.
    """

    x0: Array
    y: Array
    keys: Array
    shared: Array
    x: Array
    margin: Array
    broken: Array
    broken_at: Array
    number: Array


class Settings(NamedTuple):
    """What a run is made of, fixed before tracing."""

    norm: str
    eps: float
    queries: int
    p_init: float
    rescale: bool
    parity: bool


def square(
    eps: float,
    norm: str = "linf",
    *,
    queries: int = 5000,
    p_init: float = 0.8,
    rescale: bool = False,
    restarts: int = 1,
    parity: bool = False,
) -> Resumable:
    """Square attack: a query changes one square window at random, and is kept where it lowers the margin.

    `x <- x'` where `z_y(x') - max_{c != y} z_c(x')` is less than at `x`; an example is left alone once it is
    misclassified. It needs no gradient, so it also breaks networks whose gradients say nothing. See Andriushchenko et
    al., "Square attack", arXiv 1912.00049; for l1 Croce and Hein, arXiv 2103.01208.

    Every example draws its own windows and signs from its own key. The reference implementation draws one window per
    query for the whole batch, for linf also one set of signs, and its windows never reach the last row and column.

    Args:
      eps: radius in pixel units of [0, 1].
      norm: `"linf"`, `"l2"` or `"l1"`.
      queries: forward passes of a run, after that of the start.
      p_init: fraction of the image that the first windows cover.
      rescale: fit the schedule of window sizes, made for 10,000 queries, to `queries`.
      restarts: independent runs.
      parity: draw as the reference implementation does.

    Returns:
      A `Resumable`: `attack(key, logits_fn, x, y, *, index=None) -> x_adv` for images `[B, H, W, C]`.

    Raises:
      ValueError: an option out of range; at the call, images that are not `[B, H, W, C]`.
    """
    threats.threat(norm, eps)  # checks both
    checks.positive_int("queries", queries)
    checks.positive_int("restarts", restarts)
    checks.in_range("p_init", p_init, 0.0, 1.0)
    settings = Settings(norm, float(eps), queries, p_init, rescale, parity)

    def advance(network: Network, state: State, count: Array | int) -> State:
        shape, step = state.x0.shape, moves_on(settings, state.x0)

        def on_lines(x: Array, keys: Array) -> Array:
            return network(x.reshape(shape), keys)

        def unfinished(carry: tuple[Array, State]) -> Array:
            return (carry[0] < count) & ~jnp.all(carry[1].broken)

        def once(carry: tuple[Array, State]) -> tuple[Array, State]:
            return carry[0] + 1, query(settings, step, on_lines, shape[-1], carry[1])

        state = state._replace(x0=lines(state.x0), x=lines(state.x))
        state = jax.lax.while_loop(unfinished, once, (jnp.zeros((), jnp.int32), state))[1]
        return state._replace(x0=state.x0.reshape(shape), x=state.x.reshape(shape))

    return Resumable(
        name="square",
        settings={**settings._asdict(), "restarts": restarts},
        runs=lambda classes: restarts,
        rank=lambda run: 0,
        steps=queries,
        forwards=1,
        backwards=0,
        start=lambda network, given, run: begin(settings, network, given, run),
        advance=advance,
        outcome=outcome,
    )


def moves_on(settings: Settings, x0: Array) -> Moves:
    """The moves for images of this shape."""
    if x0.ndim != 4:
        raise ValueError(f"x must be images [B, H, W, C] for the square attack; got shape {tuple(x0.shape)}.")
    height, width, channels = x0.shape[1:]
    sides = window_sides(
        settings.norm, settings.queries, settings.p_init, rescale=settings.rescale, height=height, width=width
    )
    return moves(settings.norm, settings.eps, sides, (height, width, channels), full=not settings.parity)


def begin(settings: Settings, network: Network, given: Rows, run: Array | int) -> State:
    """The state at the starting image; examples that are misclassified as they are stay as they are."""
    keys = objective.fold(objective.fold(given.keys, _STREAM), run)
    shared = jnp.broadcast_to(keys[:1], keys.shape) if settings.parity else keys
    first, second = (objective.fold(keys_, settings.queries) for keys_ in (keys, shared))
    x0, wrong = given.x, jnp.argmax(given.logits, axis=1) != given.y
    x = jnp.where(threats.per_example(wrong, x0), x0, moves_on(settings, x0).start(first, second, x0))
    seen = objective.forward(network, losses.margin, x, given.y, first)
    broken, zero = wrong | seen.wrong, jnp.zeros_like(given.y)
    return State(x0, given.y, keys, shared, x, -seen.loss, broken, jnp.where(broken, 0, -1), zero)


def query(settings: Settings, step: Moves, network: Network, channels: int, state: State) -> State:
    """One more candidate for every example that is not broken yet; images are `[B, H, W * C]` here."""
    keys = jax.vmap(jax.random.fold_in)(state.keys, state.number)
    candidate = step.propose(state.x, state.x0, chance(settings, state, keys, channels), state.number)
    seen = objective.forward(network, losses.margin, candidate, state.y, keys)
    accept = ~state.broken & (-seen.loss < state.margin)
    new = accept & seen.wrong
    return state._replace(
        x=jnp.where(threats.per_example(accept, candidate), candidate, state.x),
        margin=jnp.where(accept, -seen.loss, state.margin),
        broken=state.broken | new,
        broken_at=jnp.where(new, state.number + 1, state.broken_at),
        number=state.number + ~state.broken,  # what a broken example counts does not depend on the others
    )


def chance(settings: Settings, state: State, keys: Array, channels: int) -> Chance:
    """The random numbers of a query; in parity mode only the signs for l2 and l1 differ between examples."""
    numbers = jnp.zeros((len(keys), 5 + channels))
    values = own = noise.uniform(keys, numbers)
    if settings.parity:
        values = noise.uniform(jax.vmap(jax.random.fold_in)(state.shared, state.number), numbers)
        own = values if settings.norm == "linf" else own
    return Chance(values[:, :4], (values[:, 4] < 0.5).astype(jnp.int32), signs(own[:, 5:]))


def outcome(state: State) -> Outcome:
    """What the run found: the image of least margin, which is misclassified where `broken`."""
    best = objective.Best(state.x, state.broken, -state.margin)
    return Outcome(state.x, state.broken, state.broken_at, best)
