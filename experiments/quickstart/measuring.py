"""One row: compress, write, attack, time."""

import pathlib
import re
import time

import jax
import numpy as np

from experiments.common import measuring
from experiments.common.measuring import Bench, write
from experiments.common.subject import Subject
from experiments.quickstart.compressions import Compression
from experiments.quickstart.options import Options
from spartax import attacks, measure

__all__ = ["Bench", "bench", "row", "write"]


def bench(subject: Subject, options: Options) -> Bench:
    """Prepare the measurements of one subject."""
    pgd = attacks.pgd(subject.eps, steps=options.pgd_steps, restarts=options.pgd_restarts)
    found = {
        "FGSM": attacks.fgsm(subject.eps),
        f"PGD-{options.pgd_steps}x{options.pgd_restarts}": pgd,
        f"Square-{options.queries}": attacks.square(subject.eps, queries=options.queries),
    }
    return measuring.bench(subject, found, options.seed)


def row(bench: Bench, compression: Compression, folder: pathlib.Path) -> measure.Record:
    """Compress one way, write the checkpoint into `folder`, and measure everything, also along dense gradients."""
    start, subject = time.perf_counter(), bench.subject
    shape = jax.ShapeDtypeStruct(bench.batch.shape, np.float32)
    key = jax.random.key(bench.seed, impl="rbg")  # compiles in a third of the time of the default generator
    params = compression.make(subject.apply_fn, subject.variables, shape, key)
    path = folder / re.sub(r"[^a-z0-9]+", "-", compression.name.lower()).strip("-")
    about = {"method": compression.name, "options": compression.options, "role": compression.role}
    routes = measuring.parent_route(subject, params)
    return measuring.record(bench, params, path, about, start=start, routes=routes)
