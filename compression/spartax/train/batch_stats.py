"""Running statistics of batch normalization, measured anew."""

import functools
from collections.abc import Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax.core import unfreeze

from spartax.records import Array, Params
from spartax.train.network import TrainApply


def reestimate_batch_stats(train_apply: TrainApply, variables: Params, batches: Iterable[Any]) -> Params:
    """Replace the running statistics by the mean of the batch statistics over `batches`.

    Compression moves the activations that the running statistics describe; this is often most of what fine-tuning
    repairs in one-shot compression (Hubara et al., arXiv:2006.10518). A layer's running value is a mixture
    `m old + (1 - m) batch`; `m` is read off the network itself by running it on statistics of zeros and of ones.
    Batches of unequal size count by their size. The spread between batches is not part of the variance, so batches
    should be large.

    Args:
      train_apply: `(variables, x) -> (logits, {"batch_stats": ...})`, as `make_step` takes it.
      variables: `{"params": ..., "batch_stats": ...}`; compressed leaves are welcome if `train_apply` takes them.
      batches: images [B, ...], or tuples whose first entry they are.

    Returns:
      `variables` with new `batch_stats`.

    Raises:
      ValueError: variables without batch_stats, no batch, or statistics that do not react to the batch.
    """
    if not isinstance(variables, Mapping) or "batch_stats" not in variables:
        raise ValueError("variables must hold batch_stats; a network without batch normalization has none to refresh.")
    run = functools.partial(_from, train_apply)
    zeros = jax.tree.map(jnp.zeros_like, unfreeze(variables["batch_stats"]))
    total, share, count = zeros, None, 0
    for batch in batches:
        x = batch[0] if isinstance(batch, (tuple, list)) else batch
        fresh = run(variables, zeros, x)  # (1 - m) batch
        if share is None:
            ones = jax.tree.map(jnp.ones_like, zeros)
            share = jax.tree.map(_share, run(variables, ones, x), fresh)
        total, count = jax.tree.map(functools.partial(_add, len(x)), total, fresh), count + len(x)
    if share is None:
        raise ValueError("batches must hold at least one batch; got none.")
    return {**variables, "batch_stats": jax.tree.map(lambda value, part: value / (part * count), total, share)}


def _add(weight: int, total: Array, value: Array) -> Array:
    return total + weight * value


@functools.partial(jax.jit, static_argnums=0)
def _from(train_apply: TrainApply, variables: Params, stats: Params, x: Array) -> Params:
    """The running statistics after one batch, starting from `stats`."""
    return unfreeze(train_apply({**variables, "batch_stats": stats}, x)[1]["batch_stats"])


def _share(from_ones: Array, from_zeros: Array) -> float:
    """`1 - m`, the part that a batch has in a running value."""
    share = float(1.0 - jnp.mean(from_ones - from_zeros))
    if not 0.0 < share <= 1.0:
        raise ValueError("train_apply does not update batch_stats from the batch; pass train=True and mutable.")
    return share
