"""The commands."""

import argparse
import collections
import json
import pathlib
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence

import jax
import numpy as np
import optax

from spartax import attacks, checkpoint, data, measure, train, tree
from spartax.arrays import dense, is_leaf, nbytes, pack, straight_through_inputs
from spartax.cli import network, steps
from spartax.cli.options import parser
from spartax.compress import compress
from spartax.measure import folder
from spartax.program import compressed, explain
from spartax.records import ApplyFn, Params

AT_ONCE = 1000  # images of a batch of batch statistics


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
    given = steps.settled(given)
    transforms = steps.transforms(given)
    found = network.read(given.checkpoint, given.apply, given.shape)
    apply, batch = found.program()
    images = data.load(given.data, "train", given.data_dir, given.examples) if given.data else None
    if images is not None:
        network.check(apply, found.params, images.x.shape)
        batch = images.x, images.y
    loss = optax.softmax_cross_entropy_with_integer_labels
    key = jax.random.key(given.seed)
    small = pack(compress(apply, found.params, *transforms, batches=[batch], loss=loss, key=key).params)
    small, said = _refreshed(found, small, images)
    size = network.write(given.out, found._replace(params=small, about=steps.about(given, found.about)))
    print(measure.summary(small))
    print("\n".join([f"{given.out}: {size:,} bytes on disk", *said]))


def _refreshed(found: network.Network, params: Params, images: data.Dataset | None) -> tuple[Params, list[str]]:
    """With batch statistics of the compressed network where it has any, and a line that says of which images."""
    if not (isinstance(params, Mapping) and params.get("batch_stats")):
        return params, []
    if images is None:
        return params, ["batch statistics: those of the network before; with --data they are measured anew"]
    module = found.module
    if module is None:
        return params, ["batch statistics: those of the network before; --apply does not tell how to measure them anew"]

    def training(variables: Params, x: jax.Array) -> tuple:
        return module.apply(variables, x, train=True, mutable=["batch_stats"])

    batches = np.array_split(images.x, -(-len(images.x) // AT_ONCE))
    fresh = train.reestimate_batch_stats(training, dense(params), batches)
    said = f"batch statistics: measured anew on {len(images.x)} images of {images.name}"
    return {**params, "batch_stats": fresh["batch_stats"]}, [said]


def _attack(given: argparse.Namespace) -> None:
    start = time.perf_counter()
    found = network.read(given.checkpoint, given.apply, given.shape)
    parent = network.read(given.parent, given.apply, given.shape) if given.parent else None
    if parent is not None:
        about = found.about if found.about.steps else found.about._replace(model=parent.about.model)
        found = found._replace(apply=found.apply or parent.apply, about=about)
    if found.apply is None:
        raise ValueError("--apply module:function is needed, or --parent CKPT of a known architecture")
    test = data.load(given.data, "test", given.data_dir, given.examples)
    x, y = test.x, test.y
    apply, _ = found._replace(shape=found.shape or (1, *x.shape[1:])).program()
    network.check(apply, found.params, x.shape)
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
        network.check(parent.apply or apply, parent.params, x.shape)
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
