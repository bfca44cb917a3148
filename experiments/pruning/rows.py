"""One row of the results: bytes, multiply-adds and accuracies of one pruned network."""

import pathlib
import tempfile
import time
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from experiments.pruning.subject import BATCH, Subject
from experiments.quickstart import measuring
from spartax import measure, tree
from spartax.arrays import dense, is_leaf
from spartax.records import Params

_dense = jax.jit(dense)


def judged(subject: Subject, variables: Params) -> jax.tree_util.Partial:
    """The network as a function of images; all rows share one compilation."""
    return jax.tree_util.Partial(subject.apply, _dense(variables))


def row(
    subject: Subject,
    variables: Params,
    method: str,
    options: Mapping[str, Any],
    seed: int,
    start: float,
    robust: Mapping[str, np.ndarray] | None = None,
    warnings: tuple[str, ...] = (),
) -> measure.Record:
    """The record of a network.

    Args:
      subject: where it comes from.
      variables: its weights, compressed leaves among them.
      method: its name in the table.
      options: its options.
      seed: its seed.
      start: `time.perf_counter()` when its work began.
      robust: for each attack, which examples stay correct.
      warnings: reasons to doubt these.
    """
    test, robust = subject.test, robust or {}
    clean = measure.correct(subject.apply, _dense(variables), test.x, test.y, min(BATCH, len(test.y)))
    worst = np.all([clean, *robust.values()], axis=0)
    with tempfile.TemporaryDirectory() as folder:
        disk, packed = measuring.write(variables, pathlib.Path(folder) / "weights")
    shape = jax.ShapeDtypeStruct((1, *test.x.shape[1:]), np.float32)
    macs = measure.macs(subject.apply, variables, shape)
    zeros = measure.sparsity(variables)
    return measure.Record(
        method=method,
        options=dict(options),
        role="dense" if method == "dense" else "baseline" if method.startswith("random") else "method",
        model=subject.name,
        data=test.name,
        seed=seed,
        examples=len(test.y),
        threat={"norm": "linf", "eps": subject.eps, "levels": subject.levels},
        bytes_disk=disk,
        bytes_packed=packed,
        sparsity={path: zeros[path] for path, weight in tree.weights(variables).items() if is_leaf(weight)},
        macs={"dense": macs.dense, "run": macs.run, "nonzero": macs.nonzero},
        clean=float(clean.mean()),
        robust={name: float(flags.mean()) for name, flags in robust.items()},
        worst=float(worst.mean()) if robust else None,
        broken_by={},
        warnings=list(warnings),
        latency=None,
        seconds=time.perf_counter() - start,
        **measure.environment(),
    )
