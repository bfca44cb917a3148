"""Accuracy under attack, example by example."""

import functools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import jax
import numpy as np
from jax.tree_util import Partial

from spartax import checks, sharding
from spartax.attacks.network import as_pytree
from spartax.measure.accuracy import predictions
from spartax.measure.padding import padded
from spartax.records import Array, Attack, LogitsFn

QUERIES = "queries"  # the route of attacks that need no gradients


class Robustness(NamedTuple):
    """What attacks did to a network; accuracies are means of these flags.

    Attributes:
      clean: bool [N], classified correctly without attack.
      robust: attack name -> bool [N], correct without attack and still correct after it, by whatever route.
      routes: route -> bool [N], the same for all attacks that went by it; `"queries"` are those without gradients.
      worst: bool [N], correct without attack and after every attack by every route: the number to report.
      broken_by: attack name -> how many examples it was the first to break, in the order given.
      route: str [N], the first route that broke each example; `""` where none did, `"clean"` where none had to.
      masking: how much robust accuracy the first route alone would have claimed beyond `worst`. Much of it means that
        the gradients of the network hide how weak it is.
    """

    clean: np.ndarray
    robust: dict[str, np.ndarray]
    routes: dict[str, np.ndarray]
    worst: np.ndarray
    broken_by: dict[str, int]
    route: np.ndarray
    masking: float


def robustness(
    attacks: Mapping[str, Attack],
    logits_fn: LogitsFn,
    x: Array | np.ndarray,
    y: Array | np.ndarray,
    key: Array,
    batch_size: int = 128,
    *,
    routes: Mapping[str, LogitsFn] | None = None,
    devices: Sequence[jax.Device] = (),
) -> Robustness:
    """Run every attack on every example that is classified correctly; the others count as not robust.

    A network with rounding inside looks robust to attacks along its own gradients, which are zero. Attack it by
    several routes, as `{"own": f, "straight-through": sx.straight_through(f), "dense parent": g}`, and with Square.

    Example `i` is attacked with the randomness `fold_in(key, i)`, so that the result does not depend on `batch_size`.

    Args:
      attacks: name -> attack. One that takes no gradients, as Square, asks `logits_fn` itself and no route.
      logits_fn: `x [B, ...] -> logits [B, K]`, the network that is judged. Given as `jax.tree_util.Partial(apply,
        params)`, networks of the same structure share one compilation.
      x: clean images in [0, 1], [N, ...].
      y: labels, integers [N].
      key: PRNG key.
      batch_size: examples at a time.
      routes: name -> network that the attacks work on in the place of `logits_fn`, which is the only route if left
        out. `Partial(apply, dense(params))` computes the same function as a network with compressed leaves, and shares
        the compilation of the dense network; any other network makes a transfer attack, and `attacks.bpda(logits_fn,
        other)` a stronger one. The verdict is always that of `logits_fn`.
      devices: the devices to spread every batch over, as `attacks.autoattack` does; the default device if empty.

    Raises:
      ValueError: no attack or route, images outside [0, 1], labels that do not fit, or an attack that leaves [0, 1].

    Example:
      >>> import jax
      >>> import jax.numpy as jnp
      >>> from spartax import attacks, measure
      >>> def logits_fn(x):  # class 0: the first pixel is brighter; rounded to tenths, so that gradients are zero
      ...     return 0.1 * jnp.round(10 * x[:, 0, :, 0])
      >>> x, y = jnp.array([[0.6, 0.5], [0.9, 0.2]]).reshape(2, 1, 2, 1), jnp.array([0, 0])
      >>> routes = {"own": logits_fn, "smooth": lambda x: x[:, 0, :, 0]}
      >>> found = measure.robustness({"FGSM": attacks.fgsm(0.1)}, logits_fn, x, y, jax.random.key(0), routes=routes)
      >>> {route: robust.tolist() for route, robust in found.routes.items()}
      {'own': [True, True], 'smooth': [False, True]}
      >>> found.worst.tolist(), float(found.masking)
      ([False, True], 0.5)
    """
    if not attacks:
        raise ValueError("attacks must hold at least one attack; got none.")
    if routes is not None and not routes:
        raise ValueError("routes must hold at least one network; got none.")
    checks.images("x", x)
    checks.labels("y", y, batch=len(x))
    x, y = np.asarray(x), np.asarray(y)
    place, share = sharding.spreader(devices)
    size, network = -(-min(batch_size, len(x)) // share) * share, as_pytree(logits_fn)
    clean = predictions(network, x, size, place) == y
    rows = np.flatnonzero(clean).astype(np.int32)
    survived = {}
    for route, name, target in _pairs(attacks, network, routes or {"own": network}):
        survived[route, name] = np.zeros(len(x), bool)
        if len(rows):
            batches = padded(size, x[rows], y[rows], rows)
            found = _attacked(name, attacks[name], as_pytree(target), key, ((n, place(batch)) for n, batch in batches))
            survived[route, name][rows] = predictions(network, found, size, place) == y[rows]
    return _collect(clean, survived, list(attacks))


def _pairs(
    attacks: Mapping[str, Attack], network: LogitsFn, routes: Mapping[str, LogitsFn]
) -> Iterator[tuple[str, str, LogitsFn]]:
    """Every attack by every route that it can take."""
    by_queries = [name for name, attack in attacks.items() if getattr(attack, "backwards", 1) == 0]
    for route, target in routes.items():
        yield from ((route, name, target) for name in attacks if name not in by_queries)
    yield from ((QUERIES, name, network) for name in by_queries)


def _collect(clean: np.ndarray, survived: dict[tuple[str, str], np.ndarray], names: list[str]) -> Robustness:
    taken = dict.fromkeys(route for route, _ in survived)
    robust = {name: _all(flags for (_, other), flags in survived.items() if other == name) for name in names}
    routes = {route: _all(flags for (other, _), flags in survived.items() if other == route) for route in taken}
    worst = _all(robust.values())
    by_attack, by_route = _first(clean, robust), _first(clean, routes)
    broken_by = {name: int((by_attack == name).sum()) for name in names}
    masking = float(next(iter(routes.values())).mean() - worst.mean())
    return Robustness(clean, robust, routes, worst, broken_by, by_route, masking)


def _all(flags: Iterable[np.ndarray]) -> np.ndarray:
    return np.logical_and.reduce(list(flags))


def _first(clean: np.ndarray, flags: dict[str, np.ndarray]) -> np.ndarray:
    """The name of the first flags that are down for each example."""
    return np.select([~clean, *(~up for up in flags.values())], ["clean", *flags], "")


def _attacked(
    name: str, attack: Attack, logits_fn: Partial, key: Array, batches: Iterable[tuple[int, tuple[Array, ...]]]
) -> np.ndarray:
    """The images that the attack found."""
    found = [np.asarray(_run(attack, logits_fn, key, *batch))[:count] for count, batch in batches]
    images = np.concatenate(found)
    if not np.all((images >= 0) & (images <= 1)):  # NaN fails both
        raise ValueError(f"attacks: {name!r} returned images outside [0, 1].")
    return images


@functools.partial(jax.jit, static_argnums=0)
def _run(attack: Attack, logits_fn: Partial, key: Array, x: Array, y: Array, index: Array) -> Array:
    return attack(key, logits_fn, x, y, index=index)
