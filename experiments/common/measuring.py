"""One row: write, attack, time."""

import functools
import pathlib
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.tree_util import Partial

from experiments.common.subject import Subject
from spartax import checkpoint, measure, tree
from spartax.arrays import dense, is_leaf, nbytes, pack, rounds_inputs, straight_through_inputs
from spartax.attacks import AutoAttackResult
from spartax.measure.accuracy import predictions
from spartax.program import compressed
from spartax.records import ApplyFn, Attack, LogitsFn, Params

BATCH = 128
TIMED = 32  # images of a timed batch, of sets with larger images than the digits


class Bench(NamedTuple):
    """What all rows share, so that they compile what they can only once.

    Attributes:
      subject: the network.
      plain: the jitted dense network.
      apply: the same for compressed leaves.
      attacks: name -> attack.
      seed: seed of the attacks.
      environment: versions, device, commit.
      parent: the network that times are compared with; the subject itself when left out.
    """

    subject: Subject
    plain: ApplyFn
    apply: ApplyFn
    attacks: dict[str, Attack]
    seed: int
    environment: dict[str, Any]
    parent: Subject | None = None

    @property
    def batch(self) -> np.ndarray:
        """The images that are timed."""
        return self.subject.test.x[: BATCH if self.subject.levels == 16 else TIMED]

    @property
    def devices(self) -> list[jax.Device]:
        """Those that attacks are spread over; none for the default device."""
        return [] if self.subject.mesh is None else list(self.subject.mesh.devices.flat)


def bench(subject: Subject, attacks: dict[str, Attack], seed: int, parent: Subject | None = None) -> Bench:
    """Prepare the measurements of one subject."""
    fn = subject.apply_fn
    return Bench(subject, jax.jit(fn), compressed(fn), attacks, seed, measure.environment(), parent)


def record(
    bench: Bench,
    params: Params,
    folder: pathlib.Path,
    about: Mapping[str, Any],
    *,
    start: float,
    routes: Mapping[str, LogitsFn] | None = None,
    curve: Mapping[float, Attack] | None = None,
    ensemble: Callable[..., AutoAttackResult] | None = None,
    timed: bool = True,
) -> measure.Record:
    """Write a network as a checkpoint and measure everything.

    Args:
      bench: of the dense network.
      params: its weights as they are to be judged.
      folder: of the checkpoint.
      about: `method`, `options`, `role` of the record.
      start: `time.perf_counter()` when the work on it began.
      routes: networks that the attacks work on, besides this one with its own gradients and, where it rounds
        activations, straight through them.
      curve: radius -> attack of that radius, for the security curve.
      ensemble: from `attacks.autoattack`, run on top.
      timed: whether latency is measured.
    """
    subject, test = bench.subject, bench.subject.test
    disk, packed = write(params, folder)
    network = Partial(bench.plain if not _has_leaves(params) else bench.apply, params)
    accuracies = _attacked(bench, network, routes or {}, curve, ensemble) if bench.attacks else _clean(bench, network)
    costs = measure.macs(subject.apply_fn, params, jax.ShapeDtypeStruct(bench.batch.shape, np.float32))
    zeros = measure.sparsity(params)
    return measure.Record(
        **about,
        model=(bench.parent or subject).name,
        data=test.name,
        seed=bench.seed,
        examples=len(test.y),
        threat={"norm": "linf", "eps": subject.eps, "levels": subject.levels},
        bytes_disk=disk,
        bytes_packed=packed,
        sparsity={path: zeros[path] for path, weight in tree.weights(params).items() if is_leaf(weight)},
        macs={"dense": costs.dense, "run": costs.run, "nonzero": costs.nonzero},
        **accuracies,
        latency=times(bench, network) if timed else None,
        seconds=time.perf_counter() - start,
        **bench.environment,
    )


def _clean(bench: Bench, network: Partial) -> dict[str, Any]:
    """Of a network that is not attacked."""
    test = bench.subject.test
    found = predictions(own_routes(bench, network)["own"], test.x, min(BATCH, len(test.y)))
    clean = float((found == test.y).mean())
    return {"clean": clean, "robust": {}, "worst": None, "broken_by": {}, "warnings": []}


def _attacked(
    bench: Bench,
    network: Partial,
    routes: Mapping[str, LogitsFn],
    curve: Mapping[float, Attack] | None,
    ensemble: Callable[..., AutoAttackResult] | None,
) -> dict[str, Any]:
    """What the attacks leave."""
    test, routes, key = bench.subject.test, {**own_routes(bench, network), **routes}, jax.random.key(bench.seed)
    where = {"routes": routes, "devices": bench.devices}
    found = measure.robustness(bench.attacks, network, test.x, test.y, key, BATCH, **where)
    robust, warnings = found.robust, doubts(bench, network)
    if ensemble is not None:
        # compiled once for all networks without rounding inside, whose own gradients are those of their dense form
        others = {name: f for name, f in routes.items() if name != "own"} if rounds_inputs(network.args) else {}
        last = ensemble(key, routes["own"], test.x, test.y, routes=others)
        stands = last.robust & (predictions(network, last.x_adv, min(BATCH, len(test.y))) == test.y)
        robust = {**robust, "AutoAttack": stands}
        broken = {**found.broken_by, "AutoAttack": int((found.worst & ~stands).sum())}
        worst, first = found.worst & stands, next(iter(found.routes.values()))
        # Square takes no gradients, those "by" another route none of the network's own
        elsewhere = [name == "square" or " by " in name for name in last.broken_by.attack]
        claimed = first & (stands | np.array(elsewhere))
        masking = float(claimed.mean() - worst.mean())
        found = found._replace(worst=worst, broken_by=broken, masking=masking)
        warnings += last.warnings
    return {
        "clean": float(found.clean.mean()),
        "robust": {name: float(flags.mean()) for name, flags in robust.items()},
        "worst": float(found.worst.mean()),
        "broken_by": found.broken_by,
        "warnings": warnings,
        "curve": security_curve(bench, network, found, routes, curve) if curve else None,
        "masking": found.masking if len(found.routes) > 1 else None,
    }


def security_curve(
    bench: Bench,
    network: Partial,
    found: measure.Robustness,
    routes: Mapping[str, LogitsFn],
    curve: Mapping[float, Attack],
) -> dict[str, float]:
    """Accuracy after an attack of each radius; an example that a smaller radius breaks counts as broken by a larger."""
    test, key, measured = bench.subject.test, jax.random.key(bench.seed), {bench.subject.eps: found.worst}
    where = {"routes": routes, "devices": bench.devices}
    for eps, attack in curve.items():
        stood = measure.robustness({"PGD": attack}, network, test.x, test.y, key, BATCH, **where).worst
        measured[eps] = measured.get(eps, stood) & stood  # of the own radius the other attacks count too
    standing, radii = found.clean, {"0": float(found.clean.mean())}
    for eps in sorted(measured):
        standing = standing & measured[eps]
        radii[f"{eps:.6g}"] = float(standing.mean())
    return radii


def own_routes(bench: Bench, network: Partial) -> dict[str, Partial]:
    """The network along its own gradients, which come first, and straight through activations that it rounds.

    One that rounds none has the gradients of its dense form.
    """
    (params,) = network.args
    if not rounds_inputs(params):
        return {"own": dense_form(bench.subject, params)}
    through = straight_through_inputs(params)
    same = jax.tree.structure(through) == jax.tree.structure(params)
    return {"own": network, **({} if same else {"straight-through": Partial(bench.apply, through)})}


def parent_route(parent: Subject, params: Params) -> dict[str, Partial]:
    """The dense network, a route against what was made of it; none against itself."""
    return {} if params is parent.variables else {"dense parent": Partial(parent.apply_fn, parent.variables)}


def dense_form(subject: Subject, params: Params) -> Partial:
    """The same function of dense weights: its gradients compile once for all rows of a subject."""
    return Partial(subject.apply_fn, jax.jit(dense)(params))


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


def doubts(bench: Bench, network: Partial) -> list[str]:
    """Reasons not to take robust accuracy at its word: a network that always answers the same cannot be attacked."""
    test = bench.subject.test
    counts = np.bincount(predictions(network, test.x, min(BATCH, len(test.y))) + 1)
    share = counts.max() / len(test.y)
    return [f"{share:.0%} of the images get one class, so nothing is left to attack"] if share > 0.75 else []


def times(bench: Bench, network: Partial) -> dict[str, Any]:
    """Latency of one batch, in turns with the dense network."""
    parent = bench.parent or bench.subject
    plain = bench.plain if bench.parent is None else jax.jit(parent.apply_fn)
    functions = {"dense": functools.partial(plain, parent.variables, bench.batch)}
    is_dense = bench.parent is None and not _has_leaves(network.args[0])
    if not is_dense:
        functions["this"] = functools.partial(network, bench.batch)
    found = {name: value._asdict() for name, value in measure.latency(functions).items()}
    own = found["dense"] if is_dense else found["this"]
    return {**own, "batch": len(bench.batch), "dense": found["dense"]}


def _has_leaves(params: Params) -> bool:
    return any(is_leaf(weight) for weight in tree.weights(params).values())
