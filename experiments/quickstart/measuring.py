"""One row: compress, write, attack, time."""

import functools
import pathlib
import re
import time
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.tree_util import Partial

from experiments.quickstart.compressions import Compression
from experiments.quickstart.options import Options
from experiments.quickstart.subject import Subject
from spartax import attacks, checkpoint, measure, tree
from spartax.arrays import dense, is_leaf, nbytes, pack
from spartax.measure.accuracy import predictions
from spartax.program import compressed
from spartax.records import ApplyFn, Attack, Params

BATCH = 128
TIMED = 32  # images of a timed batch, of sets with larger images than the digits


class Bench(NamedTuple):
    """What all rows share, so that they compile what they can only once.

    Attributes:
      subject: the network.
      options: the command line.
      plain: the jitted dense network.
      apply: the same for compressed leaves.
      attacks: name -> attack.
      environment: versions, device, commit.
    """

    subject: Subject
    options: Options
    plain: ApplyFn
    apply: ApplyFn
    attacks: dict[str, Attack]
    environment: dict[str, Any]

    @property
    def batch(self) -> np.ndarray:
        """The images that are timed."""
        return self.subject.test.x[: BATCH if self.subject.levels == 16 else TIMED]


def bench(subject: Subject, options: Options) -> Bench:
    """Prepare the measurements of one subject."""
    pgd = attacks.pgd(subject.eps, steps=options.pgd_steps, restarts=options.pgd_restarts)
    name = f"PGD-{options.pgd_steps}x{options.pgd_restarts}"
    both = {"FGSM": attacks.fgsm(subject.eps), name: pgd}
    apply_fn = subject.apply_fn
    return Bench(subject, options, jax.jit(apply_fn), compressed(apply_fn), both, measure.environment())


def row(bench: Bench, compression: Compression, folder: pathlib.Path) -> measure.Record:
    """Compress one way, write the checkpoint into `folder`, and measure everything."""
    start = time.perf_counter()
    subject, seed = bench.subject, bench.options.seed
    shape = jax.ShapeDtypeStruct(bench.batch.shape, np.float32)
    key = jax.random.key(seed, impl="rbg")  # compiles in a third of the time of the default generator
    params = compression.make(subject.apply_fn, subject.variables, shape, key)
    disk, packed = write(params, folder / re.sub(r"[^a-z0-9]+", "-", compression.name.lower()).strip("-"))
    is_dense = compression.role == "dense"
    network = Partial(bench.plain if is_dense else bench.apply, params)
    found = attack(bench, network, params)
    costs = measure.macs(subject.apply_fn, params, shape)
    compressed_paths = [path for path, weight in tree.weights(params).items() if is_leaf(weight)]
    zeros = measure.sparsity(params)
    return measure.Record(
        method=compression.name,
        options=compression.options,
        role=compression.role,
        model=subject.name,
        data=subject.test.name,
        seed=seed,
        examples=len(subject.test.y),
        threat={"norm": "linf", "eps": subject.eps, "levels": subject.levels},
        bytes_disk=disk,
        bytes_packed=packed,
        sparsity={path: zeros[path] for path in compressed_paths},
        macs={"dense": costs.dense, "run": costs.run, "nonzero": costs.nonzero},
        clean=float(found.clean.mean()),
        robust={name: float(flags.mean()) for name, flags in found.robust.items()},
        worst=float(found.worst.mean()),
        broken_by=found.broken_by,
        warnings=doubts(bench, network),
        latency=times(bench, network, is_dense),
        seconds=time.perf_counter() - start,
        **bench.environment,
    )


def write(params: Params, path: pathlib.Path) -> tuple[int, int]:
    """Save packed params, read them back, and give the bytes of the files and of the arrays.

    Raises:
      RuntimeError: what was read differs from what was written.
    """
    packed = pack(params)
    checkpoint.save(path, packed)
    restored = checkpoint.restore(path)
    pairs = zip(jax.tree.leaves(packed), jax.tree.leaves(restored), strict=True)
    if not all(np.asarray(a).tobytes() == np.asarray(b).tobytes() for a, b in pairs):
        raise RuntimeError(f"{path} does not give back what was saved")
    return checkpoint.size_on_disk(path), nbytes(packed)


def attack(bench: Bench, network: Partial, params: Params) -> measure.Robustness:
    """Attacks follow the gradients of the dense form, which all rows share; the compressed network is judged."""
    test = bench.subject.test
    routes = {"dense form": Partial(bench.subject.apply_fn, jax.jit(dense)(params))}
    key = jax.random.key(bench.options.seed)
    return measure.robustness(bench.attacks, network, test.x, test.y, key, BATCH, routes=routes)


def doubts(bench: Bench, network: Partial) -> list[str]:
    """Reasons not to take robust accuracy at its word: a network that always answers the same cannot be attacked."""
    test = bench.subject.test
    counts = np.bincount(predictions(network, test.x, min(BATCH, len(test.y))) + 1)
    share = counts.max() / len(test.y)
    return [f"{share:.0%} of the images get one class, so nothing is left to attack"] if share > 0.75 else []


def times(bench: Bench, network: Partial, is_dense: bool) -> dict[str, Any]:
    """Latency of one batch, in turns with the dense network."""
    functions = {"dense": functools.partial(bench.plain, bench.subject.variables, bench.batch)}
    if not is_dense:
        functions["this"] = functools.partial(network, bench.batch)
    found = {name: value._asdict() for name, value in measure.latency(functions).items()}
    own = found["dense"] if is_dense else found["this"]
    return {**own, "batch": len(bench.batch), "dense": found["dense"]}
