"""How attacks call the network: checked at the door, at full precision, with gradients that stay fast in loops."""

import functools
import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from spartax import checks, program
from spartax.records import Array, Attack, LogitsFn

Network = Callable[[Array, Array], Array]  # (x [B, ...], one PRNG key per example [B]) -> float32 logits [B, K]


class Problem(NamedTuple):
    """What an attack works on, checked.

    Attributes:
      network: the model as attacks call it.
      x: clean images, float32 [B, ...].
      y: labels, int32 [B].
      keys: one PRNG key per example [B], derived from its dataset index.
      classes: K, the number of logits.
    """

    network: Network
    x: Array
    y: Array
    keys: Array
    classes: int


def as_pytree(logits_fn: LogitsFn) -> jax.tree_util.Partial:
    """A function whose arguments bound so far are a pytree, so that new values of them do not compile anew."""
    return logits_fn if isinstance(logits_fn, jax.tree_util.Partial) else jax.tree_util.Partial(logits_fn)


def is_random(logits_fn: LogitsFn) -> bool:
    """Whether the model draws: it then has a parameter `key` left open, and is called as `logits_fn(x, key=key)`."""
    try:
        parameter = inspect.signature(logits_fn).parameters.get("key")
    except (TypeError, ValueError):  # a callable without a readable signature
        return False
    return parameter is not None and parameter.default is inspect.Parameter.empty


def network(logits_fn: LogitsFn) -> Network:
    """`(x, keys) -> logits` in float32 at the highest matmul precision: reduced precision looks like robustness.

    A model that draws gets one key per example, so that its noise does not depend on the rest of the batch.
    """
    forward: Callable[..., Array] = fast(logits_fn)
    draws = is_random(logits_fn)

    def call(x: Array, keys: Array) -> Array:
        with jax.default_matmul_precision("highest"):
            logits = jax.vmap(lambda x, key: forward(x[None], key=key)[0])(x, keys) if draws else forward(x)
        if logits.ndim != 2 or logits.shape[0] != x.shape[0]:
            raise ValueError(f"logits_fn must return [B, K] = [{x.shape[0]}, K]; got shape {tuple(logits.shape)}.")
        return logits.astype(jnp.float32)

    return call


def fast(logits_fn: LogitsFn) -> LogitsFn:
    """The same function with convolutions whose gradients stay fast inside `lax` loops on CPU."""
    return logits_fn if is_random(logits_fn) else program.fast_gradients(logits_fn)


def keeps_state(logits_fn: LogitsFn, x: Array) -> bool:
    """Whether two traces of the model differ, as they do when it draws from a hidden generator or counts its calls."""
    key = {"key": jax.random.key(0)} if is_random(logits_fn) else {}
    one, two = (jax.make_jaxpr(lambda x: logits_fn(x, **key))(x) for _ in range(2))
    same = str(one) == str(two) and len(one.consts) == len(two.consts)
    return not (same and all(a is b or np.array_equal(a, b) for a, b in zip(one.consts, two.consts)))


def example_keys(key: Array, index: Array) -> Array:
    """`fold_in(key, index[i])` for every example, [B]: the randomness of an example depends on nothing else.

    Keys of another generator become threefry keys first: under `vmap`, "rbg" keys do not draw independently.
    """
    known = jax.random.key_impl(key) == "threefry2x32"
    words = jax.random.key_data(key) if known else jax.random.bits(key, (2,), jnp.uint32)
    return jax.vmap(jax.random.fold_in, (None, 0))(jax.random.wrap_key_data(words, impl="threefry2x32"), index)


def problem(
    key: Array, logits_fn: LogitsFn, x: Array | np.ndarray, y: Array | np.ndarray, index: Array | None = None
) -> Problem:
    """Checks the arguments of an attack and prepares them.

    Raises:
      ValueError: images outside [0, 1], labels that are not integers in [0, K), logits that are not [B, K] with K of at
        least two, an index of the wrong shape.
    """
    model = network(logits_fn)
    with jax.ensure_compile_time_eval():  # values that are known stay known, also while the attack is being traced
        checks.images("x", x)
        checks.labels("y", y, batch=x.shape[0])
        index = jnp.arange(x.shape[0], dtype=jnp.int32) if index is None else index
        if index.shape != y.shape:
            raise ValueError(f"index must have shape {y.shape}, one dataset index per image; got {index.shape}.")
    images, keys = jnp.asarray(x, jnp.float32), example_keys(key, jnp.asarray(index))
    classes = jax.eval_shape(model, images, keys).shape[1]
    if classes < 2:
        raise ValueError(f"logits_fn must return [B, K] with at least two classes; got K = {classes}.")
    with jax.ensure_compile_time_eval():
        checks.labels("y", y, batch=x.shape[0], classes=classes)
    return Problem(model, images, jnp.asarray(y, jnp.int32), keys, classes)


def on_any_mesh(attack: Attack) -> Attack:
    """The attack, also on images on a mesh with explicit axes: inside it the compiler places the arrays by itself.

    Weights on such a mesh must be arguments, `jax.tree_util.Partial(apply, params)`: an array that `logits_fn` closes
    over cannot follow.
    """

    @functools.wraps(attack)
    def call(key: Array, logits_fn: LogitsFn, x: Array, y: Array, **options: Any) -> Array:
        sharding = getattr(jax.typeof(x), "sharding", None)
        if sharding is None or jax.sharding.AxisType.Explicit not in sharding.mesh.axis_types:
            return attack(key, logits_fn, x, y, **options)
        checks.images("x", x)  # inside, values are not known
        checks.labels("y", y, batch=x.shape[0])

        def inside(options: dict[str, Any], *given: Any) -> Array:
            return attack(*given, **options)

        run: Any = jax.sharding.auto_axes(inside, out_sharding=sharding)
        return run(options, key, as_pytree(logits_fn), x, y)

    return call
