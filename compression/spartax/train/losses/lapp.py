"""`lapp`: any loss, with a bound on the multiply-adds that learnt thresholds leave."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from spartax import checks, tree
from spartax.arrays import Thresholded, dense
from spartax.arrays.thresholded import gates
from spartax.program import groups, inspect
from spartax.records import ApplyFn, Array, Params
from spartax.train.network import Loss, Network


def lapp(base: Loss, apply: ApplyFn, variables: Params, x: Any, target: float, *, weight: float = 3.0) -> Loss:
    """`base + weight * max(0, macs / (target * all macs) - 1)^2`, `macs` those of the channels that are on.

    The count is exact and its derivative that of the soft gates (`spartax.Thresholded`); a channel that is off saves
    work where it is made and where it is read. See `prune.lapp`. For a target that falls during the first epochs, make
    a step for each part of them.

    Args:
      base: such as `train.clean()`.
      apply: `apply(variables, x) -> logits [B, K]`.
      variables: with the thresholds, for their shapes.
      x: a batch of inputs or its `jax.ShapeDtypeStruct`.
      target: part of the multiply-adds that may be left, in (0, 1].
      weight: factor, 0 or more; 2 to 5 is usual.

    Raises:
      ValueError: arguments out of their range, variables without thresholds.
    """
    checks.in_range("target", target, 1e-6, 1.0)
    checks.in_range("weight", weight, 0.0, float("inf"), open_high=True)
    left = macs_left(apply, variables, x)

    @functools.wraps(base)
    def loss(network: Network, key: Array, x: Array, y: Array) -> tuple[Array, dict]:
        value, updates = base(network, key, x, y)
        return value + weight * jnp.square(jax.nn.relu(left(network.variables) / target - 1)), updates

    return loss


def macs_left(apply: ApplyFn, variables: Params, x: Any) -> Callable[[Params], Array]:
    """`variables -> part of the multiply-adds that is left` by the gates of its `Thresholded` weights."""
    plain = jax.eval_shape(dense, variables)
    macs = {path: u.macs for path, u in inspect(apply, plain, x).items() if u.layout is not None}
    gated = {path for path, w in tree.weights(variables).items() if isinstance(w, Thresholded)}
    if not gated:
        raise ValueError("variables hold no Thresholded weight; begin with prune.lapp.")
    # (weight that reads, weight whose gates decide, indices of its input axis for each channel)
    reads = []
    for group in groups(apply, plain, x).values():
        made = [m for m in group.members if m.role == "output" and m.path in gated]
        if len(made) == 1 and not group.frozen and sum(m.role == "output" for m in group.members) == 1:
            reads += [(m.path, made[0], m) for m in group.members if m.role == "input"]
    shapes = {path: w.shape for path, w in tree.weights(plain).items()}

    def left(variables: Params) -> Array:
        on = {path: gates(w) for path, w in tree.pick(variables, gated).items()}
        parts = {path: jnp.asarray(float(count)) for path, count in macs.items()}
        for path in gated:
            parts[path] *= jnp.mean(on[path])
        for path, made, read in reads:
            off = jnp.sum(1 - on[made.path][made.indices[:, 0]]) * read.indices.shape[1]
            parts[path] *= 1 - off / shapes[path][read.axis]
        return sum(parts.values(), start=jnp.zeros(())) / sum(macs.values())

    return left
