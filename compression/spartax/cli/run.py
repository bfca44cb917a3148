"""The commands."""

import argparse
import collections
import json
import pathlib
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

import jax
import numpy as np
import optax

from spartax import attacks, catalog, checkpoint, data, lowrank, measure, prune, quantize, tree
from spartax.arrays import is_leaf, nbytes, pack, straight_through_inputs
from spartax.cli import network
from spartax.cli.options import parser
from spartax.compress import compress
from spartax.measure import folder
from spartax.program import compressed, explain, inspect
from spartax.records import ApplyFn, Params, Transform


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code: 0, 2 for a wrong input, 130 when interrupted."""
    given = parser().parse_args(arguments)
    commands = {"inspect": _inspect, "compress": _compress, "attack": _attack, "report": _report}
    try:
        commands[given.command](given)
    except (ValueError, OSError) as error:
        print(f"spartax {given.command}: {str(error).splitlines()[0]}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"spartax {given.command}: interrupted", file=sys.stderr)
        return 130
    return 0


def _inspect(given: argparse.Namespace) -> None:
    found = network.read(given.checkpoint, given.apply, given.shape)
    print(measure.summary(found.params))
    print(f"{given.checkpoint}: {checkpoint.size_on_disk(given.checkpoint):,} bytes on disk")
    if found.apply is None and found.shape is None:
        return
    apply, x = found.program()
    for path, lines in explain(apply, found.params, x).items():
        print(f"{path}: {'; '.join(lines)}")
    costs = measure.macs(apply, found.params, x)
    print(f"multiply-adds an example: {costs.dense:,} dense, {costs.run:,} run, {costs.nonzero:,} nonzero")


def _compress(given: argparse.Namespace) -> None:
    steps = _steps(given)
    found = network.read(given.checkpoint, given.apply, given.shape)
    apply, batch = found.program()
    if given.data:
        images = data.load(given.data, "train", given.data_dir)
        batch = images.x[: given.examples], images.y[: given.examples]
    loss = optax.softmax_cross_entropy_with_integer_labels
    key = jax.random.key(given.seed)
    small = pack(compress(apply, found.params, *steps, batches=[batch], loss=loss, key=key).params)
    size = network.write(given.out, found._replace(params=small, about=_about(given, found.about)))
    print(measure.summary(small))
    print(f"{given.out}: {size:,} bytes on disk")


def _about(given: argparse.Namespace, before: network.About) -> network.About:
    """What was done to the network, after what had been done before."""
    words, options = [], {}
    if given.prune:
        words.append((f"{given.prune}, {given.allocation}", f"{100 * given.sparsity:g}%"))
        options |= {name: getattr(given, name) for name in ("prune", "allocation", "sparsity")}
    if given.factorize:
        part = "energy" if given.bytes is None else "bytes"
        words.append((given.factorize, f"{100 * getattr(given, part):g}% of {part}"))
        options |= {name: getattr(given, name) for name in ("factorize", "energy", "bytes")}
    if given.quantize:
        sizes = {"bits": f"{given.bits} bits", "group": f"groups of {given.group}"}
        words.append((given.quantize, *(text for name, text in sizes.items() if getattr(given, name) is not None)))
        options |= {name: getattr(given, name) for name in ("quantize", "bits", "group")}
    if given.data:
        options |= {"calibration": given.data, "calibration_images": given.examples}
    if given.seed:
        options["compress_seed"] = given.seed
    method = " + ".join([*filter(None, [before.options.get("method")]), *(word[0] for word in words)])
    options = {**before.options, **measure.chosen(options), "method": method}
    return before._replace(steps=(*before.steps, *(", ".join(word) for word in words)), options=options)


def _steps(given: argparse.Namespace) -> list[Transform]:
    """The transforms that were asked for, in the order in which they work best."""
    steps = []
    if given.prune:
        criterion = _plug("--prune", prune.criteria, given.prune)
        allocation = _plug("--allocation", prune.allocations, given.allocation)
        steps.append(prune.prune(criterion, given.sparsity, allocation))
    if given.factorize:
        if given.energy is None and given.bytes is None:
            raise ValueError("--factorize needs --energy FRACTION or --bytes FRACTION")
        ranks = lowrank.energy(given.energy) if given.bytes is None else lowrank.byte_budget(given.bytes)
        steps.append(lowrank.factorize(_plug("--factorize", lowrank.factorizations, given.factorize), ranks))
    if given.quantize:
        options = {name: getattr(given, name) for name in ("bits", "group") if getattr(given, name) is not None}
        steps.append(quantize.quantize(_plug("--quantize", quantize.grids, given.quantize, **options)))
    if not steps:
        raise ValueError("give at least one of --prune, --factorize and --quantize")
    return steps


def _plug(option: str, package: ModuleType, name: str, **options: Any) -> Any:
    factory: Callable[..., Any] = catalog.load(package, name)
    try:
        return factory(**options)
    except TypeError as error:  # it has no such option, or needs one that the command line does not offer
        raise ValueError(f"{option} {name}: {error}") from error


def _attack(given: argparse.Namespace) -> None:
    start = time.perf_counter()
    found = network.read(given.checkpoint, given.apply, given.shape)
    parent = network.read(given.parent, given.apply, given.shape) if given.parent else None
    if parent is not None:
        about = found.about if found.about.steps else found.about._replace(model=parent.about.model)
        found = found._replace(apply=found.apply or parent.apply, about=about)
    if found.apply is None:
        raise ValueError("--apply module:function is needed, or --parent CKPT of a known architecture")
    test = data.load(given.data, "test", given.data_dir)
    x, y = test.x[: given.examples], test.y[: given.examples]
    apply, _ = found._replace(shape=found.shape or (1, *x.shape[1:])).program()
    inspect(apply, found.params, jax.ShapeDtypeStruct(x.shape, np.float32))  # fails in one line if they do not fit
    if given.out:
        _ready(given.out)
    judged, routes = jax.tree_util.Partial(compressed(apply), found.params), _routes(parent, found.params, apply, x)
    evaluate = attacks.autoattack(given.eps, given.norm, given.version, verbose=False)
    result = evaluate(jax.random.key(given.seed), judged, x, y, routes=routes)
    record = _record(given, found, apply, test, len(x), result, start)
    record = record._replace(options={**record.options, "routes": list(routes)})
    try:
        print(json.dumps(record._asdict()), flush=True)  # first, so that no fault of the file loses it
    finally:
        if given.out:
            _kept(given.out, record)


def _kept(out: pathlib.Path, record: measure.Record) -> None:
    try:
        measure.append(out, record)
    except OSError as error:
        raise ValueError(f"--out {out} took no line ({error.strerror}); it is the one printed above") from error


def _ready(out: pathlib.Path) -> None:
    """Make the folder of a file and try both, before minutes of work and not after.

    Raises:
      ValueError: they cannot be written to.
    """
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out.parent) as file:
            file.write(b"x" * 4096)
        if out.exists():
            out.open("ab").close()
    except OSError as error:
        raise ValueError(f"--out {out} cannot be written to ({error.strerror}); nothing was attacked") from error


def _routes(
    parent: network.Network | None, params: Params, apply: ApplyFn, x: np.ndarray
) -> dict[str, jax.tree_util.Partial]:
    """Networks whose gradients are used besides its own: straight through what it rounds, and its dense parent."""
    routes, through = {}, straight_through_inputs(params)
    if jax.tree.structure(through) != jax.tree.structure(params):
        routes["straight-through"] = jax.tree_util.Partial(compressed(apply), through)
    if parent is not None:
        inspect(parent.apply or apply, parent.params, jax.ShapeDtypeStruct(x.shape, np.float32))
        routes["dense parent"] = jax.tree_util.Partial(compressed(parent.apply or apply), parent.params)
    return routes


def _record(
    given: argparse.Namespace,
    found: network.Network,
    apply: ApplyFn,
    test: data.Dataset,
    examples: int,
    result: attacks.AutoAttackResult,
    start: float,
) -> measure.Record:
    params, about = found.params, found.about
    zeros, weights = measure.sparsity(params), tree.weights(params)
    leaves = [path for path, weight in weights.items() if is_leaf(weight)]
    shape = jax.ShapeDtypeStruct((1, *test.x.shape[1:]), np.float32)
    costs = measure.macs(apply, params, shape)
    broken = collections.Counter(str(name) for name in result.broken_by.attack)
    made = "baseline" if about.options.get("prune") == "random" else "method"
    return measure.Record(
        method=" + ".join(about.steps) or network.name_of(given.checkpoint),
        options={**about.options, "version": given.version},
        role=made if leaves or about.steps else "dense",
        model=about.model,
        data=test.name,
        seed=given.seed,
        examples=examples,
        threat={"norm": given.norm, "eps": given.eps, "levels": 16 if given.data == "digits" else 255},
        bytes_disk=checkpoint.size_on_disk(given.checkpoint),
        bytes_packed=nbytes(pack(params)),
        sparsity={path: zeros[path] for path in leaves},
        macs={"dense": costs.dense, "run": costs.run, "nonzero": costs.nonzero},
        clean=result.clean_accuracy,
        robust={"AutoAttack": result.robust_accuracy},
        worst=result.robust_accuracy,
        broken_by={name: count for name, count in broken.items() if name not in ("", "clean")},
        warnings=list(result.warnings),
        latency=None,
        seconds=time.perf_counter() - start,
        **measure.environment(),
    )


def _report(given: argparse.Namespace) -> None:
    files = folder.written(given.folder, folder.read(given.folder), given.title)
    print("\n".join(str(path) for path in files))
