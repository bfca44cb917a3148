"""`dead_neurons`: how often rectified units are exactly zero."""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import primitives

from spartax import checks
from spartax.arrays.verbs import dense
from spartax.program import walk
from spartax.records import ApplyFn, Array, Params


class DeadNeurons(NamedTuple):
    """Zeros of rectified units over a set of inputs. A unit that is zero on every input is *statically* dead.

    Attributes:
      dynamic: among (unit, input) pairs of units that are not statically dead, the part that is zero.
      dynamic_of_all: the same zeros as a part of all pairs.
      static: part of the units that is statically dead.
      units: number of units: entries of the outputs of all ReLUs for one example.
    """

    dynamic: float
    dynamic_of_all: float
    static: float
    units: int


def dead_neurons(apply_fn: ApplyFn, params: Params, batches: Iterable[Any]) -> DeadNeurons:
    """The dynamic dead-neuron rate of every `max(x, 0)` in the program, as AP measures it (see
    `prune.selective_activation`).

    Units inside `scan`, `while` and `cond` are not seen.

    Args:
      apply_fn: pure function `(params, x) -> logits [B, K]`.
      params: arrays and compressed leaves.
      batches: `x` or `(x, y)`, the batch axis first.

    Raises:
      ValueError: no batch, or a program without such units.
    """
    total, count = None, 0
    run, params = jax.jit(_zeros(apply_fn)), jax.jit(dense)(params)
    for batch in batches:
        x = batch[0] if isinstance(batch, tuple | list) else batch
        new = run(params, x)
        total = new if total is None else jax.tree.map(jnp.add, total, new)
        count += len(x)
    if total is None:
        raise ValueError("batches must hold at least one batch; got none.")
    if not total:
        raise ValueError("apply_fn has no rectified unit, max(x, 0), outside of loops and branches.")
    zeros = np.concatenate([np.ravel(t) for t in jax.device_get(total)]).astype(np.int64)
    alive = zeros < count
    dead = int(zeros[alive].sum())
    share = dead / (int(alive.sum()) * count) if alive.any() else 0.0
    return DeadNeurons(share, dead / (zeros.size * count), float(np.mean(~alive)), zeros.size)


def _zeros(apply_fn: ApplyFn) -> Callable[[Params, Array], list[Array]]:
    """`(params, x) -> for each ReLU, on how many examples each unit is zero`."""

    def run(params: Params, x: Array) -> list[Array]:
        found: list[Array] = []

        def visit(eqn: Any, values: list[Any], trips: int) -> list[Any] | None:
            if eqn.primitive in _LOOPS:
                return walk.bind(eqn, values)  # what is computed in there cannot be taken out
            if eqn.primitive is primitives.custom_jvp_call_p:  # nothing is differentiated here
                return walk.walk(eqn.params["call_jaxpr"], values, visit, everywhere=True)
            if eqn.primitive is primitives.max_p and any(_is_zero(v) for v in values):
                out = walk.bind(eqn, values)
                found.append(jnp.sum(out[0] == 0, axis=0))
                return out
            return None

        jaxpr, _ = walk.trace(apply_fn, (params, x), {})
        walk.walk(jaxpr, jax.tree.leaves((params, x)), visit, everywhere=True)
        return found

    return run


_LOOPS = (primitives.scan_p, primitives.while_p, primitives.cond_p)


def _is_zero(x: Any) -> bool:
    return checks.is_concrete(x) and np.size(x) == 1 and float(x) == 0.0
